"""Operators whose recurrence can be that of flash-linear-attention: all that have the option."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from ops import fla_double
from torch import Tensor, nn

from mechbench.catalogue.options import signature_options
from mechbench.catalogue.registry import OPERATORS
from mechbench.errors import ConfigError
from mechbench.operators.base import from_stored, make_operator, operator_options, to_stored
from mechbench.ops import used
from mechbench.ops.used import ops_used

D, L = 16, 13
OP = {
    "deltanet": "delta_rule",
    "deltaproduct": "delta_rule",
    "gated-deltanet": "delta_rule",
    "linear-attention": "decay_attention",
    "mamba2": "decay_attention",
    "retnet": "decay_attention",
    "rwkv": "exp_average",
}
each = pytest.mark.parametrize("name", OP)


def build(name: str, backend: str, max_seqlen: int = L, d_model: int = D) -> nn.Module:
    torch.manual_seed(0)
    return make_operator(name, d_model=d_model, max_seqlen=max_seqlen, backend=backend)


def with_gradients(operator: nn.Module, u: Tensor) -> list[Tensor]:
    u = u.clone().requires_grad_()
    y = operator(u)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).to(y)
    given = [u, *operator.parameters()]
    return [y, *torch.autograd.grad(y, given, weight, materialize_grads=True)]  # L = 1: no decay


def test_all_that_have_the_option_are_tested() -> None:
    found = set()
    for name in OPERATORS.built_in():
        option = signature_options(OPERATORS.load(name), ()).get("backend")
        if option is not None and "fla" in get_args(option.annotation):
            found.add(name)
    assert found == set(OP)


@each
@pytest.mark.parametrize("length", [1, L])
def test_outputs_and_gradients_are_those_of_torch(
    name: str, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fla_double.install(monkeypatch)
    monkeypatch.setattr(used, "_USED", {})
    u = torch.randn(2, length, D, generator=torch.Generator().manual_seed(1)).double()
    ours = with_gradients(build(name, "fla").double(), u)
    assert ops_used("cpu")[OP[name]] == "fla"
    theirs = with_gradients(build(name, "torch").double(), u)
    assert ops_used("cpu")[OP[name]] == "fla, torch"
    bound = 1e-5 if name == "rwkv" else 1e-9  # its kernel is given float32
    for got, expected in zip(ours, theirs, strict=True):
        assert (got - expected).norm() <= bound * max(1, expected.norm())


@each
def test_what_cannot_run_says_why_in_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mechbench.ops.fla.missing", lambda: "not there")
    u = torch.zeros(1, 3, D)
    with pytest.raises(ConfigError, match=f"^{OP[name]} backend 'fla' cannot run: not there$"):
        build(name, "fla")(u)
    with pytest.raises(ConfigError, match="'triton' cannot run"):
        build(name, "triton").double()(u.double())
    with pytest.raises(ConfigError, match=r"operator .* is 'flaa': did you mean 'fla'"):
        build(name, "flaa")


@each
def test_the_default_is_not_stored_so_that_older_results_stay_the_same_cells(name: str) -> None:
    assert operator_options(name, {})["backend"] == "auto"
    assert "backend" not in to_stored(name, operator_options(name, {}))
    assert from_stored(name, {})["backend"] == "auto"
    named = to_stored(name, operator_options(name, {"backend": "fla"}))
    assert from_stored(name, named)["backend"] == named["backend"] == "fla"


@pytest.mark.gpu
@pytest.mark.usefixtures("untuned")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@each
@pytest.mark.parametrize("length", [37, 1000])
def test_the_package_gives_what_torch_gives(name: str, length: int) -> None:
    u = torch.randn(2, length, 64, generator=torch.Generator().manual_seed(1)).cuda()
    found = []
    for backend in ("torch", "fla"):
        operator = build(name, backend, length, 64).cuda()
        with torch.autocast("cuda", torch.bfloat16):
            try:
                found.append(with_gradients(operator, u))
            except ConfigError as error:
                pytest.skip(str(error))
    for expected, got in zip(*found, strict=True):
        assert (got - expected).float().norm() <= 5e-2 * max(1, expected.float().norm())
