from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from checks import broken_operators as broken
from checks.broken_operators import D, L, V, model
from torch import Tensor, nn

from mechbench.catalogue.registry import OPERATORS
from mechbench.training.gate.lookahead import (
    Fault,
    by_gradient,
    by_value,
    cuts,
    model_function,
    operator_function,
    repeating,
    undisturbed,
)

pytestmark = pytest.mark.usefixtures("clean_registry")
BUILT_IN = [n for n in OPERATORS.names() if OPERATORS.entry(n).origin == "built-in"]
B = 4


def tokens(length: int = L, rows: int = B) -> Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(0))


def operator(forward: Callable[[Tensor], Tensor]) -> type[nn.Module]:
    class Mine(broken.Base):
        def forward(self, u: Tensor) -> Tensor:
            return forward(u * self.scale)

    return Mine


def value(
    component: Any,
    length: int = L,
    *,
    rows: int = B,
    dtype: str = "float32",
    training: bool = False,
) -> Fault | None:
    built = model(component, max_seqlen=length).train(training)
    run = repeating(model_function(built, tokens(length, rows)), 0)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        return by_value(run, cuts(length, rows, 0), 0)


def gradient(component: Any, length: int = L, *, dtype: str = "float32") -> Fault | None:
    built = model(component, max_seqlen=length).train()
    run = repeating(model_function(built, tokens(length)), 0)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        return by_gradient(run, cuts(length, B, 0)[0], 0)


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_built_ins_do_not_look_ahead(name: str, dtype: str) -> None:
    for length in (2, 3, L):
        assert value(name, length, dtype=dtype) is None
        assert gradient(name, length, dtype=dtype) is None


@pytest.mark.parametrize("component", broken.SOUND)
@pytest.mark.parametrize("double", [False, True])
def test_rounding_in_the_precision_that_a_layer_computes_in_is_none(
    component: type[nn.Module], double: bool
) -> None:
    """An FFT in float32 moves earlier outputs by 1e-7, in float64, too."""
    dtype = torch.float64 if double else torch.float32
    for seed in range(3):
        torch.manual_seed(seed)
        layer = component(D, 100).to(dtype)
        u = torch.randn(B, 100, D, dtype=dtype)
        run = operator_function(layer, u)
        at = cuts(100, B, seed)
        assert by_value(run, at, seed) is None
        assert by_gradient(run, at[0], seed) is None
    assert value(component, dtype="bfloat16") is None


@pytest.mark.parametrize("seed", range(190, 200))
def test_an_output_that_was_rounded_the_rare_way_is_none(seed: int) -> None:
    """One in a hundred such layers has an output that nearly every change rounds the other way."""
    torch.manual_seed(seed)
    layer, u = broken.HalfInside(16, 100), torch.randn(4, 100, 16)
    assert by_value(operator_function(layer, u), cuts(100, 4, seed), seed) is None


def test_an_fft_really_moves_what_is_before() -> None:
    torch.manual_seed(0)
    layer, u = broken.SinglePrecision(D, 100).double(), torch.randn(B, 100, D).double()
    changed = u.clone()
    changed[:, 50:] += 1
    moved = float((layer(u) - layer(changed))[:, :50].detach().abs().max())
    assert 1e-9 < moved < 1e-5


@pytest.mark.parametrize("weight", [1.0, 1e-2, 1e-4])
@pytest.mark.parametrize("length", [2, 3, L, 33])
def test_looking_a_token_ahead_is_found_down_to_rounding(weight: float, length: int) -> None:
    class Ahead(broken.SinglePrecision):
        def forward(self, u: Tensor) -> Tensor:
            return super().forward(u) + weight * broken.shifted(u)

    found = value(Ahead, length)
    assert found is not None
    assert found.kind == "ahead"
    found = gradient(Ahead, length)
    assert found is not None
    assert found.kind == "ahead"


@pytest.mark.parametrize(
    "forward",
    [
        lambda u: u.mean(1, keepdim=True).expand_as(u),
        lambda u: torch.cat([u[:, :-2], u[:, -1:], u[:, -1:]], 1),  # the last token alone
        lambda u: torch.cat([u[:, 1:-1], u[:, -2:]], 1),  # every token but the last
        lambda u: u.cumsum(1) + 1e-2 * u.amax(1, keepdim=True),
        lambda u: u.cumsum(1) + u.flip(1).cumsum(1).flip(1).sign() * 1e-2,
        lambda u: u + torch.sin(3e2 * broken.shifted(u).detach()),
    ],
)
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_looking_ahead_is_found_in_whatever_form(
    forward: Callable[[Tensor], Tensor], rows: int
) -> None:
    found = value(operator(forward), rows=rows)
    assert found is not None
    assert found.kind == "ahead"


def test_what_is_found_names_output_and_input() -> None:
    found = value(operator(broken.shifted))
    assert found is not None
    assert found.text.startswith("output ")
    assert " moves by " in found.text


def test_looking_ahead_by_a_quarter_shows_in_bfloat16() -> None:
    found = value(operator(lambda u: u + 0.25 * broken.shifted(u)), dtype="bfloat16")
    assert found is not None
    assert found.kind == "ahead"


def test_dropout_is_none_in_training_and_told_as_what_it_is_in_evaluation() -> None:
    assert value(broken.DropoutAlways, training=True) is None
    built = model(broken.DropoutAlways).eval()
    found = by_value(model_function(built, tokens()), cuts(L, B, 0), 0)
    assert found == Fault(
        "restless",
        "gives another output for the same input in evaluation mode: dropout or kept state",
    )


def test_statistics_of_the_batch_are_no_matter_of_order() -> None:
    found = value(broken.BatchStatistics, training=True)
    assert found is not None
    assert found.kind == "mixed"
    assert value(broken.BatchStatistics) is None  # those that were kept


def test_what_is_not_finite_is_not_judged() -> None:
    found = value(operator(lambda u: u / 0))
    assert found == Fault("not finite", f"gives NaN or infinity at {L} tokens")


def test_what_rounding_alone_scatters_is_not_said_to_look_ahead() -> None:
    class Scatters(broken.SinglePrecision):
        def forward(self, u: Tensor) -> Tensor:
            return torch.sin(1e9 * super().forward(u))

    found = value(Scatters)
    assert found is not None
    assert found.kind == "unstable"
    assert found.text.startswith("moves its outputs by ")


@pytest.mark.parametrize(
    ("ahead", "dtype", "counts"),
    [
        (1e-5, torch.bfloat16, False), (1e-2, torch.bfloat16, True), (1e-5, torch.float32, True),
        (1e-6, torch.float16, False), (1e-3, torch.float16, True),
    ],
)  # fmt: skip
def test_a_gradient_far_below_the_rounding_of_half_precision_is_none(
    ahead: float, dtype: torch.dtype, counts: bool
) -> None:
    torch.manual_seed(0)
    taps, u = torch.randn(L, L), torch.randn(B, L, D)
    taps = taps.tril() + ahead * taps.triu(1)

    def run(change: Tensor | None) -> tuple[Tensor, Tensor]:
        x = u.clone().requires_grad_()
        return x, (taps @ x).to(dtype)

    for seed in range(5):
        found = by_gradient(run, cuts(L, B, seed)[0], seed)
        assert (found is not None) is counts


def test_a_gradient_that_is_cut_off_is_none() -> None:
    assert gradient(broken.Detached) is None
    layer = broken.Detached(D, L)
    run = operator_function(layer, torch.randn(B, L, D))
    assert by_gradient(run, cuts(L, B, 0)[0], 0) is None


def test_cuts_are_the_ends_the_middle_and_where_it_pays() -> None:
    at = cuts(100, 64, 0, torch.tensor([10, 20, 99]))
    assert at.shape == (1, 64)
    assert at[0, :3].tolist() == [99, 50, 1]
    assert at.min() >= 1
    assert at.max() <= 99
    assert {11, 21} <= set(at[0].tolist())
    assert len(set(at[0].tolist())) > 20
    assert cuts(100, 1, 0, torch.tensor([10])).tolist() == [[99], [11]]
    assert cuts(2, 3, 0).unique().tolist() == [1]
    assert torch.equal(cuts(100, 64, 1), cuts(100, 64, 1))


def test_global_random_state_is_left_as_it_was() -> None:
    state = torch.get_rng_state()
    with undisturbed(torch.device("cpu")):
        torch.manual_seed(5)
        torch.rand(3)
    assert torch.equal(torch.get_rng_state(), state)


def test_no_algebra_system_is_loaded() -> None:
    """PyTorch's `backward` loads sympy, which takes seconds, where it is given a gradient."""
    code = (
        "import sys, torch\n"
        "from mechbench.training.gate.lookahead import by_gradient\n"
        "x = torch.ones(1, 4, 2, requires_grad=True)\n"
        "assert by_gradient(lambda change: (x, x.cumsum(1)), torch.tensor([2]), 0) is None\n"
        "assert x.grad[0, 0, 0] != 0\n"
        "if 'sympy' in sys.modules: sys.exit('sympy is loaded')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
