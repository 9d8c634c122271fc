from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mechbench
from mechbench.catalogue.registry import FILTERS, OPERATORS, register_operator
from mechbench.errors import OperatorError
from mechbench.operators.base import depends_on_max_seqlen, make_operator, operator_options
from mechbench.plan.resolve import resolve
from mechbench.training.lengths import check_longer, for_tokens, tokens_built_for, tokens_read
from mechbench.training.model import Backbone, build_model

D, V = 8, 8
BUILT_IN = [n for n in OPERATORS.names() if OPERATORS.entry(n).origin == "built-in"]
TIMES = [
    ("hyena", {"filter": family, "filter_time": time})
    for family in ("hyena", "ckconv")
    for time in ("absolute", "relative")
]
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in BUILT_IN),
    *(("hyena", {"filter": family}) for family in FILTERS.names()),
    *TIMES,
    ("hyena", {"variant": "paper", "order": 3, "filter_norm": "l1"}),
    ("hyena", {"filter": "transfer", "n_poles": 3}),
    ("hyena", {"filter": "fno", "n_modes": 2}),
    ("hybrid", {"pattern": "attention,aft"}),
    ("hybrid", {"pattern": "hyena,s4d", "hyena.filter_time": "absolute"}),
    ("hybrid", {"pattern": "attention,retnet"}),
]
SETTINGS: dict[str, Any] = {
    "seqlen": 16, "vocab_size": V, "d_model": 16, "n_layers": 1, "batch_size": 8,
    "budget_tokens": 8 * 8 * 18, "n_test": 16, "n_validation": 16, "validate_every": 4,
    "device": "cpu",
}  # fmt: skip


def built(name: str, options: dict[str, Any], max_seqlen: int) -> nn.Module:
    """Return layer by layer what is built from one seed."""
    torch.manual_seed(0)
    return nn.ModuleList(
        make_operator(name, d_model=D, max_seqlen=max_seqlen, layer=layer, **options)
        for layer in range(2)
    )


def moved(module: nn.Module) -> nn.Module:
    """Return the module with noise on its weights: zeros may hide what a length changes."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p += 0.05 * torch.randn(p.shape, generator=generator)
    return module


def same_operator(name: str, options: dict[str, Any], length: int) -> bool:
    """Return whether what is built for four times the length has its weights and outputs."""
    short, long = built(name, options, length), built(name, options, 4 * length)
    weights, others = short.state_dict(), long.state_dict()
    if any(w.shape != others[k].shape or not torch.equal(w, others[k]) for k, w in weights.items()):
        return False
    u = torch.randn(2, length, D, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        pairs = [(a(u), b(u)) for a, b in zip(moved(short), moved(long), strict=True)]
    return all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in pairs)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_built_ins_declare_exactly_what_depends_on_the_length(
    name: str, options: dict[str, Any]
) -> None:
    # What is cut to the length (taps, lags) shows at a short one, periods at a long one.
    same = all(same_operator(name, options, length) for length in (8, 96))
    assert depends_on_max_seqlen(name, operator_options(name, options)) is not same


def config(operator: str, **changes: Any) -> Any:
    return resolve(operator, "recall", **{**SETTINGS, **changes})[0]


def test_longer_scoring_stands_in_the_configuration_where_it_decides_the_model() -> None:
    plain, longer = config("aft"), config("aft", eval_seqlens=(8, 64))
    assert (plain.max_seqlen, longer.max_seqlen) == (0, 66)
    assert (tokens_built_for(plain), tokens_built_for(longer)) == (18, 66)
    assert (tokens_read(plain), tokens_read(longer)) == (18, 66)
    assert config("aft", eval_seqlens=(8,)).max_seqlen == 0
    assert config("attention", eval_seqlens=(64,)).max_seqlen == 0


def rows(result: mechbench.Result) -> str:
    lines = (result.path.parent / "metrics.csv").read_text().splitlines()
    return "\n".join(",".join(line.split(",")[:7]) for line in lines)


@pytest.mark.parametrize("operator", ["hyena", "attention"])
def test_scoring_at_a_longer_length_changes_nothing_of_the_trained_one(
    operator: str, tmp_path: Path
) -> None:
    plain, longer = (
        mechbench.run(operator, "recall", **SETTINGS, out=tmp_path, quiet=True, eval_seqlens=more)
        for more in ((), (64,))
    )
    assert rows(plain) == rows(longer)
    assert plain.evaluations[0] == longer.evaluations[0]
    assert [e["seqlen"] for e in longer.evaluations] == [16, 64]


@pytest.mark.usefixtures("clean_registry")
class TestUndeclared:
    """Operators of a plugin that depend on max_seqlen and do not say so."""

    def register(self, name: str, forward: Callable[[Any, Tensor], Tensor], **own: Any) -> None:
        def init(self: Any, d_model: int, max_seqlen: int) -> None:
            nn.Module.__init__(self)
            self.max_seqlen = max_seqlen
            self.mix = nn.Linear(d_model, d_model)
            self.gain = nn.Parameter(torch.zeros(()))
            if name == "positions":
                self.places = nn.Parameter(torch.zeros(max_seqlen, d_model))
            self.register_buffer("seen", torch.zeros(3), persistent=False)

        register_operator(name)(
            type("Made", (nn.Module,), {"__init__": init, "forward": forward, **own})
        )

    @pytest.mark.parametrize(
        ("name", "what"),
        [("positions", "its weights do not fit"), ("scaled", "its outputs for the same input dif")],
    )
    def test_it_is_said_before_training(self, name: str, what: str, tmp_path: Path) -> None:
        self.register(name, lambda self, u: self.mix(u) * (1 + self.gain * self.max_seqlen))
        with pytest.raises(OperatorError, match=f"depends on max_seqlen .{what}") as got:
            mechbench.run(name, "recall", **SETTINGS, out=tmp_path, quiet=True, eval_seqlens=(64,))
        assert "depends_on_max_seqlen = True" in str(got.value)
        assert "\n" not in str(got.value)
        assert not list(tmp_path.rglob("checkpoint.pt"))
        mechbench.run(name, "recall", **SETTINGS, out=tmp_path, quiet=True)  # at the trained length

    def test_what_is_declared_runs(self, tmp_path: Path) -> None:
        self.register(
            "scaled",
            lambda self, u: self.mix(u) * (1 + self.gain * self.max_seqlen),
            depends_on_max_seqlen=staticmethod(lambda options: options == {}),
        )
        found = mechbench.run(
            "scaled", "recall", **SETTINGS, out=tmp_path, quiet=True, eval_seqlens=(64,)
        )
        assert found.config["max_seqlen"] == 66

    def test_declaration_that_raises_names_the_operator(self) -> None:
        self.register(
            "odd", lambda self, u: u, depends_on_max_seqlen=staticmethod(lambda o: o["x"])
        )
        with pytest.raises(OperatorError, match="operator 'odd' raised KeyError in depends_on_max"):
            config("odd", eval_seqlens=(64,))

    def test_state_outside_the_state_dict_goes_along_and_generators_stay(self) -> None:
        self.register("plain", lambda self, u: self.mix(u) * (1 + self.seen.sum()))
        settings = config("plain", eval_seqlens=(64,))
        model: Backbone = build_model(settings, tokens_built_for(settings))
        model.blocks[0].operator.seen += 1  # type: ignore[operator, union-attr]
        before = torch.get_rng_state()
        check_longer(model, settings, torch.zeros(2, 18, dtype=torch.int64), "cpu")
        longer = for_tokens(model, settings, 66, "cpu")
        assert torch.equal(torch.get_rng_state(), before)
        assert longer.blocks[0].operator.seen.tolist() == [1, 1, 1]  # type: ignore[operator, union-attr, index]
        assert longer(torch.zeros(1, 66, dtype=torch.int64)).shape == (1, 66, V)
        assert for_tokens(model, settings, 18, "cpu") is model
