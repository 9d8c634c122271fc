from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import mechbench
from mechbench.catalogue.packages import FLA
from mechbench.catalogue.registry import OPERATORS, Registry
from mechbench.errors import ConfigError, SeqlenError
from mechbench.operators.base import make_operator, operator_options
from mechbench.plan.resolve import resolve
from mechbench.training.model import Backbone

LAYERS = """from __future__ import annotations

import torch
from torch import nn


class Recorded(nn.Module):
    \"\"\"A layer as that package writes them.\"\"\"

    def __init__(
        self, mode: str = "chunk", hidden_size: int = 2048, expand: float = 2.0,
        num_heads: int = 16, head_dim: int = 256, limits: tuple = (0.0, float("inf")),
        norm_eps: float = 1e-5, num_v_heads: int = None, layer_idx: int = None, **kwargs,
    ) -> None:
        super().__init__()
        assert not kwargs
        self.seen = dict(hidden_size=hidden_size, num_heads=num_heads, head_dim=head_dim,
                         layer_idx=layer_idx, mode=mode, expand=expand, limits=limits)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, hidden_states, attention_mask=None, past_key_values=None, **kwargs):
        steps = torch.arange(1, hidden_states.shape[1] + 1)[:, None]
        return self.proj(hidden_states).cumsum(1) / steps, None, past_key_values


class Plain(nn.Module):
    def __init__(self, hidden_size: int = 1024, num_heads: int | None = None, d_model: int = None,
                 intermediate_size: int = 2048, head_dim: int = 64, ratio: int = 0.5) -> None:
        super().__init__()
        assert d_model is None
        self.seen = dict(num_heads=num_heads, head_dim=head_dim, intermediate=intermediate_size)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, hidden_states):
        return self.proj(hidden_states)


class Choosy(nn.Module):
    \"\"\"No float32; asks for a mask and the first layer's values; no gradient in evaluation.\"\"\"

    def __init__(self, hidden_size: int = 2048, num_heads: int = None, expand_ratio: int = 128,
                 mode: str = "chunk", layer_idx: int = None, num_hidden_layers: int = None):
        super().__init__()
        self.mode, self.seen = mode, (num_heads, expand_ratio, layer_idx, num_hidden_layers)
        self.proj, self.drop = nn.Linear(hidden_size, hidden_size), nn.Dropout(0.5)

    def forward(self, hidden_states, attention_mask, v_first=None, **kwargs):
        assert attention_mask is None
        y = self.proj(hidden_states)
        assert y.dtype != torch.float32, "no float32. Please use bfloat16."
        return (self.drop(y if self.training else y.detach()),)


class Grouped(nn.Module):
    def __init__(self, hidden_size: int = 2048, num_heads: int = 64, num_kv_heads: int = 4,
                 num_key_value_heads: int = 64, head_dim: int = 64) -> None:
        super().__init__()
        self.seen = (num_heads, num_kv_heads, num_key_value_heads, head_dim)

    def forward(self, hidden_states):
        raise RuntimeError("no such kernel for fp16")


class Reader(Plain):
    def forward(self, hidden_states, shared_k, shared_v, attention_mask=None):
        return hidden_states
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_registry: None) -> Iterator[Path]:
    """Put a small package `fla` in place of the real one."""
    folder = tmp_path / "fla" / "layers"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "both.py").write_text(LAYERS)
    (folder / "__init__.py").write_text(
        "from .both import *\n__all__ = ['Choosy', 'Grouped', 'Plain', 'Reader', 'Recorded']\n"
    )
    hidden = {n: m for n, m in sys.modules.items() if n.split(".")[0] == "fla"}
    for name in hidden:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = Registry("operator", "operators", "none", packages=(FLA,))
    for name in found.names():
        if name.startswith("fla:"):
            OPERATORS.entries[name] = found.entry(name)  # forgotten by clean_registry
    yield tmp_path
    for name in [n for n in sys.modules if n.split(".")[0] == "fla"]:
        del sys.modules[name]
    sys.modules.update(hidden)


@pytest.mark.usefixtures("fake")
def test_layer_is_an_operator_with_the_options_of_its_class() -> None:
    model = Backbone(
        "fla:Recorded", {"mode": "fused"}, vocab_size=8, d_model=64, n_layers=2, max_seqlen=9
    )
    seen = [block.operator.layer.seen for block in model.blocks]
    assert [s["layer_idx"] for s in seen] == [0, 1]
    assert {s["hidden_size"] for s in seen} == {64}
    assert {s["mode"] for s in seen} == {"fused"}
    assert model(torch.zeros(2, 9, dtype=torch.int64)).shape == (2, 9, 8)
    with pytest.raises(SeqlenError):
        model(torch.zeros(2, 10, dtype=torch.int64))


@pytest.mark.usefixtures("fake")
def test_heads_follow_d_model_unless_given() -> None:
    def seen(name: str, **options: object) -> tuple[object, object]:
        layer = make_operator(name, d_model=128, max_seqlen=8, **options).layer
        return layer.seen["num_heads"], layer.seen["head_dim"]

    assert seen("fla:Recorded") == (4, 64)  # expand 2
    assert seen("fla:Recorded", num_heads="2") == (2, 128)
    assert seen("fla:Recorded", expand="1") == (4, 32)
    assert seen("fla:Recorded", num_heads=2, head_dim=16) == (2, 16)
    assert seen("fla:Plain") == (None, 32)
    for given, width in (({}, 256), ({"intermediate_size": "96"}, 96)):
        layer = make_operator("fla:Plain", d_model=128, max_seqlen=8, **given).layer
        assert layer.seen["intermediate"] == width


@pytest.mark.usefixtures("fake")
def test_sizes_that_hang_on_heads_follow_them() -> None:
    def seen(name: str, d_model: int = 64, **options: object) -> tuple[object, ...]:
        return make_operator(name, d_model=d_model, max_seqlen=8, layer=3, **options).layer.seen

    assert seen("fla:Grouped") == (16, 1, 2, 32)  # 16 queries to a key, as by default
    assert seen("fla:Grouped", 1024) == (32, 2, 32, 32)
    assert seen("fla:Grouped", num_heads=4, num_kv_heads=2) == (4, 2, 4, 16)
    assert seen("fla:Choosy") == (None, 32, 0, 2)  # the first layer of two, whichever it is
    assert seen("fla:Choosy", num_heads=4, num_hidden_layers=6) == (4, 16, 0, 6)
    layer = make_operator("fla:Recorded", d_model=100, max_seqlen=8).layer
    assert layer.seen["num_heads"] == 2  # 3 heads cannot share 100 channels
    assert make_operator("fla:Recorded", d_model=8, max_seqlen=8).layer.seen["num_heads"] == 1


@pytest.mark.usefixtures("fake")
def test_layer_that_refuses_float32_computes_in_bfloat16() -> None:
    operator = make_operator("fla:Choosy", d_model=64, max_seqlen=8).train()
    operator.layer.drop.eval()
    u = torch.randn(2, 8, 64)
    y = operator(u)
    assert y.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        half = operator(u)
    assert half.dtype == torch.bfloat16  # as of any operator
    assert (y == half).all()
    with pytest.raises(RuntimeError, match="no such kernel"):
        make_operator("fla:Grouped", d_model=64, max_seqlen=8)(u)


@pytest.mark.usefixtures("fake")
def test_gradients_in_evaluation_are_those_of_training() -> None:
    operator = make_operator("fla:Choosy", d_model=64, max_seqlen=8).eval()
    u = torch.randn(2, 8, 64, requires_grad=True)
    y = operator(u)
    y.sum().backward()
    assert u.grad.abs().min() > 0  # the dropout inside stayed as it was
    assert not operator.layer.training
    with torch.no_grad():
        assert (operator(u) == y).all()
    with pytest.raises(RuntimeError, match="shapes"):
        operator(u[..., :5])
    assert not operator.layer.training


@pytest.mark.usefixtures("fake")
def test_layer_that_needs_another_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Reader .* needs shared_k, shared_v of another layer"):
        make_operator("fla:Reader", d_model=64, max_seqlen=8)


@pytest.mark.usefixtures("fake")
def test_options_are_typed_complete_and_storable() -> None:
    options = operator_options("fla:Recorded", {"num_heads": "2", "norm_eps": "1e-3"})
    assert options == {
        "expand": 2.0,
        "head_dim": None,
        "mode": "chunk",
        "norm_eps": 1e-3,
        "num_heads": 2,
        "num_v_heads": None,
    }  # without the limits, which hold infinity
    for name in ("fla:Recorded", "fla:Plain"):  # what is stored is read again
        stored = operator_options(name, {})
        assert operator_options(name, stored) == stored
    assert operator_options("fla:Plain", {})["ratio"] == 0.5
    config, _ = resolve("fla:Recorded", "recall", operator_options=options, device="cpu")
    assert len(config.cell_id) == 16
    for key in ("hidden_size", "layer_idx", "layer", "nothing"):
        with pytest.raises(ConfigError, match=f"has no option '{key}'"):
            operator_options("fla:Recorded", {key: "2"})


def test_layers_of_a_checkout_count_by_their_text(
    fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed package counts by its version: see `tests/test_sources.py`."""
    monkeypatch.setattr("mechbench.catalogue.sources._SEEN", {})
    one, _ = resolve("fla:Recorded", "recall", device="cpu")
    assert set(one.sources) == {"fla", "fla.layers", "fla.layers.both"}
    (fake / "fla" / "layers" / "both.py").write_text(LAYERS + "# edited\n")
    for name in [n for n in sys.modules if n.split(".")[0] == "fla"]:
        del sys.modules[name]
    OPERATORS.entries["fla:Recorded"].obj = None
    other, _ = resolve("fla:Recorded", "recall", device="cpu")
    assert other.cell_id != one.cell_id
    hybrid = {"pattern": "attention,fla:Plain"}
    parts, _ = resolve("hybrid", "recall", operator_options=hybrid, device="cpu")
    assert parts.sources == other.sources


@pytest.mark.usefixtures("fake")
def test_layer_trains_like_any_other_operator(tmp_path: Path) -> None:
    result = mechbench.run(
        "fla:Recorded", "recall", seqlen=8, vocab_size=8, d_model=8, budget_tokens=1000,
        n_validation=16, n_test=16, device="cpu", out=tmp_path, quiet=True,
    )  # fmt: skip
    assert result.status == "ok"
    assert result.causal


def test_list_shows_the_layers_and_imports_nothing(fake: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(fake)!r})\n"
        "from mechbench.cli import main; sys.argv[1:] = ['list', 'operators']\n"
        "try: main()\nexcept SystemExit as stop: assert not stop.code\n"
        "assert not {'torch', 'fla'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert {"fla:Plain", "fla:Recorded", "hyena"} <= {row[0] for row in rows}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.skipif(not FLA.names(), reason="flash-linear-attention is not installed")
@pytest.mark.parametrize("name", ["LinearAttention", "DeltaNet", "MultiScaleRetention"])
@pytest.mark.filterwarnings("default")
def test_real_layers_are_causal_and_train(name: str) -> None:
    torch.manual_seed(0)
    operator = make_operator(f"fla:{name}", d_model=64, max_seqlen=256).cuda().train()
    u = torch.randn(2, 256, 64, device="cuda", requires_grad=True)
    with torch.autocast("cuda", torch.bfloat16):
        y = operator(u)
    assert y.shape == u.shape
    y[:, :128].float().sum().backward()
    assert u.grad.isfinite().all()
    assert u.grad[:, 128:].abs().max() == 0
    assert u.grad[:, :128].abs().max() > 0
    assert operator.eval()(u).dtype == torch.float32  # outside autocast; DeltaNet refuses float32
    with pytest.raises(TypeError, match="float64"):
        operator(u.double())
