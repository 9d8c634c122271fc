from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checks import broken_operators as broken
from checks.broken_operators import D, L, V, model
from torch import Tensor, nn

from mechbench.catalogue.plugins import load_plugin
from mechbench.catalogue.registry import register_operator
from mechbench.errors import OperatorError
from mechbench.operators.base import make_operator
from mechbench.training.gate import blame, naming
from mechbench.training.model import Backbone

pytestmark = pytest.mark.usefixtures("clean_registry")

PLUGIN = """import mechbench
from torch import nn

@mechbench.register_operator("mine")
class Mine(nn.Module):
    def __init__(self, d_model, max_seqlen):
        super().__init__()

    def forward(self, u):
        if u.shape[1] > 3:
            raise ValueError("too\\n long")
        return u @ u
"""


def wrong_linear(d_model: int, max_seqlen: int) -> nn.Module:
    return nn.Sequential(nn.Linear(d_model + 1, d_model))


def plugin(tmp_path: Path) -> Backbone:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    load_plugin(tmp_path / "plugin.py")
    return Backbone("mine", {}, vocab_size=V, d_model=D, n_layers=1, max_seqlen=L)


def tokens(length: int = L) -> Tensor:
    return torch.zeros(2, length, dtype=torch.int64)


def raised(call: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as got:  # noqa: PT011 - any
        call()
    return got.value


def test_error_in_the_operators_file_names_it_with_line_and_reason(tmp_path: Path) -> None:
    built = plugin(tmp_path)
    found = blame("mine", raised(lambda: built(tokens())))
    assert isinstance(found, OperatorError)
    assert str(found) == "operator 'mine' raised ValueError at line 11 of its file: too long"
    # also for what torch raises on its behalf
    deep = blame("mine", raised(lambda: built(tokens(3))))
    assert "raised RuntimeError at line 12 of its file" in str(deep)


def test_error_below_a_call_of_the_operator_is_its_own_wherever_the_code_lies() -> None:
    register_operator("made")(functools.partial(wrong_linear))  # torch's code alone runs
    built = Backbone("made", {}, vocab_size=V, d_model=D, n_layers=1, max_seqlen=L)
    error = raised(lambda: built(tokens()))
    assert str(blame("made", error)).startswith(
        "operator 'made' raised RuntimeError in its forward pass: mat1"
    )


def test_error_of_an_operator_that_is_called_alone_is_its_own_too() -> None:
    register_operator("made")(functools.partial(wrong_linear))
    module = make_operator("made", d_model=D, max_seqlen=L)
    error = raised(lambda: module(torch.ones(1, L, D)))
    assert blame("made", error) is None
    assert "in its forward pass: mat1" in str(blame("made", error, module))


def test_leaving_while_being_built_is_an_error_that_names_the_operator() -> None:
    @register_operator("leaving")
    def leaving(d_model: int, max_seqlen: int) -> nn.Module:
        raise SystemExit("usage: train.py --data DATA")

    with pytest.raises(OperatorError, match="'leaving' raised SystemExit when built: usage"):
        make_operator("leaving", d_model=D, max_seqlen=L)


def test_error_in_the_backward_pass_is_the_operators() -> None:
    built = model(broken.InPlace)
    error = raised(lambda: built(tokens()).sum().backward())
    assert "operator 'mine' raised RuntimeError in its backward pass: one of the variables" in str(
        blame("mine", error)
    )


def test_leaving_the_process_is_an_error_that_names_the_operator() -> None:
    built = model(broken.Leaving)
    with pytest.raises(OperatorError, match=r"'mine' raised SystemExit at line .*: 3"):  # noqa: SIM117
        with naming("mine"):
            built(tokens())


def test_errors_of_others_are_left_alone(tmp_path: Path) -> None:
    built = plugin(tmp_path)
    assert blame("mine", raised(lambda: torch.ones(2) @ torch.ones(3))) is None
    assert blame("mine", raised(lambda: sys.exit(2))) is None
    assert blame("mine", KeyboardInterrupt()) is None
    assert blame("mine", OperatorError("said already")) is None
    # below the model, but in no operator of it
    error = raised(lambda: built(torch.full((1, 2), V)))
    assert isinstance(error, IndexError)
    assert blame("mine", error) is None


def test_running_out_of_memory_is_nobodys_fault() -> None:
    class Greedy(broken.Base):
        def forward(self, u: Tensor) -> Tensor:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    assert blame("mine", raised(lambda: model(Greedy)(tokens()))) is None


def test_naming_raises_what_blame_finds_and_passes_the_rest(tmp_path: Path) -> None:
    built = plugin(tmp_path)
    with pytest.raises(OperatorError, match="'mine' raised ValueError at line 11"), naming("mine"):
        built(tokens())
    with pytest.raises(RuntimeError, match="no operator's"), naming("mine"):
        raise RuntimeError("no operator's")


def test_line_of_a_plugins_filter_is_told_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "filter.py"
    path.write_text(
        "import mechbench\n"
        "from torch import nn\n"
        "@mechbench.register_filter('mine')\n"
        "class Mine(nn.Module):\n"
        "    def __init__(self, n_filters, d_model, max_seqlen):\n"
        "        super().__init__()\n"
        "    def forward(self, seqlen):\n"
        "        raise ValueError('no taps')\n"
    )
    load_plugin(path)
    made = Backbone("hyena", {"filter": "mine"}, vocab_size=V, d_model=D, n_layers=1, max_seqlen=L)
    with pytest.raises(OperatorError) as caught, naming("hyena"):
        made(tokens())
    told = f"operator 'hyena' raised ValueError at line 8 of {path}: no taps"
    assert str(caught.value) == told
