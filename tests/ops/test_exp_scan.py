from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mechbench.errors import ConfigError
from mechbench.ops import exp_delay, exp_merge, exp_scan, exp_scan_reference, exp_term

LENGTHS = st.sampled_from([1, 2, 3, 7, 31, 32, 33, 64]) | st.integers(1, 70)


def arguments(L: int, seed: int = 0, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    k, v = torch.randn(2, 2, L, 3, generator=generator, dtype=torch.float64)
    return scale * k, v, torch.rand(3, generator=generator, dtype=torch.float64)


@given(L=LENGTHS, seed=st.integers(0, 2**31))
def test_equals_the_direct_sum(L: int, seed: int) -> None:
    k, v, decay = arguments(L, seed)
    num, den, peak = exp_scan(k, v, decay)
    expected = exp_scan_reference(k, v, decay)
    for got, want in zip((num, den), expected, strict=True):
        torch.testing.assert_close(got * peak.exp(), want, rtol=1e-10, atol=1e-10)


def test_reference_is_the_sum_in_the_docstring() -> None:
    k, v, decay = arguments(5)
    num, den = exp_scan_reference(k, v, decay)
    for t in range(5):
        weights = [torch.exp(k[:, s] - (t - s) * decay) for s in range(t + 1)]
        torch.testing.assert_close(den[:, t], sum(weights))
        total = sum(w * v[:, s] for s, w in enumerate(weights))
        torch.testing.assert_close(num[:, t], total)


@pytest.mark.parametrize("L", [2, 3, 7, 16])
def test_gradients_equal_those_of_the_direct_sum(L: int) -> None:
    ours = [x.requires_grad_() for x in arguments(L)]
    theirs = [x.requires_grad_() for x in arguments(L)]
    weight = torch.randn(2, L, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    num, den, _ = exp_scan(*ours)
    (weight * num / den).sum().backward()
    num, den = exp_scan_reference(*theirs)
    (weight * num / den).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-9)


def test_gradcheck() -> None:
    def average(k: Tensor, v: Tensor, decay: Tensor) -> Tensor:
        num, den, _ = exp_scan(k, v, decay)
        return num / den

    assert torch.autograd.gradcheck(average, [x.requires_grad_() for x in arguments(5)])


@pytest.mark.parametrize("scale", [100.0, 1e4])
def test_exponents_beyond_the_range_of_float32_give_averages_and_gradients(scale: float) -> None:
    k, v, decay = (x.float().requires_grad_() for x in arguments(200, scale=scale))
    num, den, _ = exp_scan(k, v, decay)
    y = num / den
    y.square().sum().backward()
    assert y.isfinite().all()
    assert all(x.grad.isfinite().all() for x in (k, v, decay))
    exact = torch.softmax(  # an independent way to the last token's average
        k.detach().double() - torch.arange(199, -1, -1)[:, None] * decay.detach().double(), 1
    )
    torch.testing.assert_close(
        y[:, -1].double(), (exact * v.detach().double()).sum(1), rtol=1e-4, atol=1e-4
    )


def test_long_sums_in_float32_equal_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    k, v = torch.randn(2, 1, 2**17 + 1, 4, generator=generator)
    decay = torch.tensor([0.0, 1e-6, 1e-3, 20.0])
    low, high = exp_scan(k, v, decay), exp_scan(k.double(), v.double(), decay.double())
    assert low[0].dtype == torch.float32
    y, exact = low[0] / low[1], high[0] / high[1]
    assert ((y - exact).abs().amax((0, 1)) < 1e-4).all()


def test_delay_and_merge_join_sums_of_apart_terms() -> None:
    k, v, decay = arguments(9)
    past = exp_delay(exp_scan(k, v, decay), 1)
    num, den, peak = exp_merge(past, exp_term(k, v), decay)
    expected = exp_scan_reference(k, v, decay)
    torch.testing.assert_close(num * peak.exp(), expected[0])
    torch.testing.assert_close(den * peak.exp(), expected[1])
    nothing = exp_delay(exp_scan(k, v, decay), 20)
    assert all(torch.equal(x, torch.zeros_like(x)) for x in nothing[:2])


@pytest.mark.parametrize(
    ("k", "v", "decay"), [((2, 4), (2, 4), (4,)), ((1, 0, 2), (1, 0, 2), (2,)),
                          ((1, 3, 2), (1, 4, 2), (2,)), ((1, 3, 2), (1, 3, 2), (3,))],
)  # fmt: skip
@pytest.mark.parametrize("function", [exp_scan, exp_scan_reference])
def test_shapes_that_do_not_match_raise(
    function: object, k: tuple[int, ...], v: tuple[int, ...], decay: tuple[int, ...]
) -> None:
    with pytest.raises(ConfigError, match=r"expected \(B, L, D\) twice and \(D,\)"):
        function(torch.zeros(k), torch.zeros(v), torch.zeros(decay))
