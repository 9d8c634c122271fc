from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mechbench.catalogue.options import signature_options
from mechbench.catalogue.registry import FILTERS, register_operator
from mechbench.errors import ConfigError, OperatorError, SeqlenError
from mechbench.operators.base import (
    check_seqlen,
    components_used,
    declared_options,
    make_operator,
    materialize,
    operator_options,
    set_optim,
    toeplitz,
)


def test_make_operator_types_strings_and_keeps_them_typed_in_the_options() -> None:
    operator = make_operator("hyena", d_model=4, max_seqlen=8, order="3", variant="paper")
    assert (operator.order, operator.variant) == (3, "paper")
    options = operator_options("hyena", {"order": "3", "filter_lr": "1e-3"})
    assert (options["order"], options["filter_lr"]) == (3, 1e-3)
    assert not {"d_model", "max_seqlen"} & set(options)


def test_unknown_operator_and_option_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown operator 'hyna': did you mean 'hyena'"):
        make_operator("hyna", d_model=4, max_seqlen=8)
    with pytest.raises(ConfigError, match="'hyena' has no option 'ordre': did you mean 'order'"):
        make_operator("hyena", d_model=4, max_seqlen=8, ordre=2)


@pytest.mark.usefixtures("clean_registry")
def test_faults_of_an_operator_become_one_line_that_names_it() -> None:
    @register_operator("raising")
    class Raising(nn.Module):
        def __init__(self, d_model: int, max_seqlen: int) -> None:
            raise RuntimeError("two\nlines")

    @register_operator("no-module")
    def no_module(d_model: int, max_seqlen: int) -> int:
        return 3

    with pytest.raises(OperatorError) as caught:
        make_operator("raising", d_model=4, max_seqlen=8)
    assert str(caught.value) == "operator 'raising' raised RuntimeError when built: two lines"
    with pytest.raises(OperatorError, match=r"gave a int: expected a torch\.nn\.Module"):
        make_operator("no-module", d_model=4, max_seqlen=8)


@pytest.mark.usefixtures("clean_registry")
def test_options_of_an_argument_depend_on_those_of_the_operator_and_reach_it_as_one() -> None:
    def inner(width: int = 4, deep: bool = False) -> None: ...

    def of_inner(options: dict[str, Any]) -> dict[str, Any]:
        if options["kind"] == "none":
            raise ValueError("no kind")
        return signature_options(inner, ())

    @register_operator("outer")
    class Outer(nn.Module):
        option_groups = {"inner": of_inner}  # noqa: RUF012

        def __init__(
            self,
            d_model: int,
            max_seqlen: int,
            kind: str = "a",
            inner: dict[str, Any] | None = None,
        ) -> None:
            super().__init__()
            self.inner = inner

    assert operator_options("outer", {}) == {"deep": False, "kind": "a", "width": 4}
    assert set(declared_options("outer", {})) == {"deep", "kind", "width"}
    made = make_operator("outer", d_model=4, max_seqlen=8, width="3", kind="b")
    assert made.inner == {"width": 3, "deep": False}
    with pytest.raises(ConfigError, match="operator 'outer' has no option 'inner'"):
        operator_options("outer", {"inner": {"width": 3}})
    with pytest.raises(OperatorError, match="raised ValueError in option_groups: no kind"):
        operator_options("outer", {"kind": "none"})


@pytest.mark.usefixtures("clean_registry")
def test_components_used_are_those_that_the_operator_names() -> None:
    @register_operator("made-of-two")
    class MadeOfTwo(nn.Linear):
        parts = staticmethod(lambda options: ["attention", FILTERS.entry(options["filter"])])

    used = components_used("made-of-two", {"filter": "fno"})
    assert [(entry.kind, entry.name) for entry in used] == [
        ("operator", "made-of-two"), ("operator", "attention"), ("filter", "fno"),
    ]  # fmt: skip
    with pytest.raises(OperatorError, match="'made-of-two' raised KeyError in parts: 'filter'"):
        components_used("made-of-two", {})


def test_set_optim_leaves_what_is_not_given() -> None:
    layer = nn.Linear(2, 2)
    set_optim(layer, weight_decay=0.0)
    assert layer.weight.optim == {"weight_decay": 0.0}
    set_optim(layer, lr=1e-4)
    assert layer.bias.optim == {"lr": 1e-4, "weight_decay": 0.0}


def test_check_seqlen_returns_the_length_or_raises() -> None:
    assert check_seqlen(torch.zeros(2, 5, 3), 5) == 5
    with pytest.raises(SeqlenError, match="max_seqlen=4"):
        check_seqlen(torch.zeros(2, 5, 3), 4)


def test_toeplitz_matrix_convolves_causally() -> None:
    S = toeplitz(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    assert S[0].tolist() == [[1, 0, 0], [2, 1, 0], [3, 2, 1]]
    assert S[1].tolist() == [[4, 0, 0], [5, 4, 0], [6, 5, 4]]


def test_materialize_without_a_matrix_form_says_what_to_add() -> None:
    with pytest.raises(ConfigError, match=r"Linear has no matrix form: .*mixing_matrix"):
        materialize(nn.Linear(2, 2), torch.zeros(1, 2, 2))


@pytest.mark.parametrize("matrix", [None, torch.zeros(1, 2, 3), torch.zeros(1, 2, 3, 2)])
def test_materialize_refuses_a_matrix_of_another_shape(matrix: torch.Tensor | None) -> None:
    class Mine(nn.Module):
        def mixing_matrix(self, u: torch.Tensor) -> torch.Tensor | None:
            return matrix

    with pytest.raises(OperatorError, match=r"^Mine.mixing_matrix returned a .*\(1, D, 3, 3\)$"):
        materialize(Mine(), torch.zeros(1, 3, 2))


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("hyena", {"d_model": "64"}, "d_model is '64': expected a whole number"),
        ("hyena", {"d_model": 1.5}, "d_model is 1.5: expected a whole number"),
        ("hyena", {"max_seqlen": 0}, "max_seqlen is 0: expected at least 1"),
        ("hyena", {"max_seqlen": 2**31}, "max_seqlen is 2147483648: expected at most"),
        ("hyena", {"layer": -1}, "layer is -1: expected 0 or more"),
        ("hyena", {"filter_width": 0}, "filter_width is 0: expected at least 1"),
        ("hyena", {"filter_width": -3}, "filter_width is -3: expected at least 1"),
        ("hyena", {"filter_layers": -1}, "filter_layers is -1: expected 0 or more"),
        ("hyena", {"short_filter": 0}, "short_filter is 0: expected at least 1"),
        ("hyena", {"fast_decay": 0}, "fast_decay is 0.0: expected a positive number"),
        ("hyena", {"filter_lr": float("nan")}, "is nan: expected a finite number"),
        ("hyena", {"order": 2**31}, "order is 2147483648: expected at most 64"),
        ("s4d", {"dt_max": float("inf")}, "is inf: expected a finite number"),
        ("attention", {"n_heads": -1}, "n_heads is -1: expected 0 or more"),
        ("attention", {"n_heads": 3}, "d_model 8 over 3 heads: expected an even whole number"),
        ("attention", {"rotary_base": 0}, "rotary_base is 0.0: expected a positive number"),
        ("retnet", {"rotary_base": -2}, "rotary_base is -2.0: expected 0 or more"),
        ("retnet", {"expand_v": 0}, "expand_v is 0: expected at least 1"),
        ("mamba2", {"n_heads": -2}, "n_heads is -2: expected 0 or more"),
        ("mamba2", {"chunk": 0}, "chunk is 0: expected at least 1"),
        ("gated-deltanet", {"chunk": -1}, "chunk is -1: expected at least 1"),
        ("linear-attention", {"chunk": 0}, "chunk is 0: expected at least 1"),
        ("aft", {"window": 0}, "window is 0: expected at least 1"),
        ("gss", {"d_gate": -1}, "d_gate is -1: expected 0 or more"),
    ],
)
def test_sizes_that_cannot_be_are_one_line(name: str, given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as got:
        make_operator(name, **{"d_model": 8, "max_seqlen": 16, **given})
    assert "\n" not in str(got.value)


def test_numpy_sizes_are_taken() -> None:
    assert make_operator("attention", d_model=np.int64(8), max_seqlen=np.int32(16))


@pytest.mark.parametrize(
    "u", [None, 1, torch.zeros(4, 8), torch.zeros(1, 4, 8, dtype=torch.int64), torch.zeros(0, 4, 8)]
)
def test_matrix_is_of_numbers_along_a_sequence(u: Any) -> None:
    operator = make_operator("attention", d_model=8, max_seqlen=4)
    with pytest.raises(ConfigError, match=r"^u is .*: expected floating-point numbers of shape"):
        materialize(operator, u)


def test_matrix_of_what_is_no_module_or_raises_is_one_line() -> None:
    with pytest.raises(ConfigError, match="operator is 1: expected a torch"):
        materialize(1, torch.zeros(1, 4, 8))  # type: ignore[arg-type]
    operator = make_operator("attention", d_model=8, max_seqlen=4)
    with pytest.raises(OperatorError, match="Attention raised RuntimeError in mixing_matrix: "):
        materialize(operator, torch.zeros(1, 4, 7))
