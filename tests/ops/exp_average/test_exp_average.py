from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mechbench.errors import ConfigError
from mechbench.ops import decayed_average, exp_average_reference, windowed_average
from mechbench.ops.exp_average import _WindowSums

D = 4
LENGTHS = st.sampled_from([1, 2, 3, 7, 31, 32, 33]) | st.integers(1, 50)


def draw(L: int, W: int, seed: int = 0) -> list[Tensor]:
    """Return k, v, near and decay."""
    generator = torch.Generator().manual_seed(seed)
    k, v = torch.randn(2, 2, L, D, generator=generator, dtype=torch.float64)
    near = torch.randn(D, W, generator=generator, dtype=torch.float64)
    return [k, v, near, torch.rand(D, generator=generator, dtype=torch.float64)]


def with_gradients(function: Any, given: list[Tensor]) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in given]
    y = function(*leaves)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    grads = torch.autograd.grad(y, leaves, dy, materialize_grads=True)  # L = 1 has no decay
    return [y, *grads]


def test_reference_is_the_sum_in_the_docstring() -> None:
    k, v, near, decay = draw(6, 3)
    y = exp_average_reference(k, v, near, decay)
    for t in range(6):
        for d in range(D):
            num = den = 0.0
            for s in range(t + 1):
                lag = t - s
                bias = float(near[d, lag] if lag < 3 else -(lag - 3) * decay[d])
                weight = math.exp(float(k[1, s, d]) + bias)
                num, den = num + weight * float(v[1, s, d]), den + weight
            assert float(y[1, t, d]) == pytest.approx(num / den, rel=1e-12)


@given(L=LENGTHS, seed=st.integers(0, 2**31))
def test_decayed_values_and_gradients_are_those_of_the_softmax(L: int, seed: int) -> None:
    given = draw(L, 1, seed)
    ours = with_gradients(lambda k, v, near, w: decayed_average(k, v, near[:, 0], w), given)
    for got, expected in zip(ours, with_gradients(exp_average_reference, given), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@given(L=LENGTHS, W=st.sampled_from([1, 2, 5, 40]), seed=st.integers(0, 2**31))
def test_windowed_values_and_gradients_are_those_of_the_softmax(L: int, W: int, seed: int) -> None:
    given = draw(L, W, seed)[:3]
    zero = torch.zeros(D, dtype=torch.float64)
    theirs = with_gradients(lambda *x: exp_average_reference(*x, zero), given)
    for got, expected in zip(with_gradients(windowed_average, given), theirs, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_types_are_those_of_the_values_and_sums_those_of_the_weights(device: str) -> None:
    k, v, near, decay = (x.to(device, torch.float32) for x in draw(20, 1))
    k, v = k.bfloat16(), v.bfloat16()
    exact = exp_average_reference(k.double(), v.double(), near.double(), decay.double())
    y = decayed_average(k, v, near[:, 0], decay)
    assert y.dtype == torch.bfloat16
    assert (y.double() - exact).abs().max() <= 2**-8 * exact.abs().max()
    y = windowed_average(k, v, near)
    exact = exp_average_reference(k.double(), v.double(), near.double(), 0 * decay.double())
    assert y.dtype == torch.bfloat16
    assert (y.double() - exact).abs().max() <= 2**-8 * exact.abs().max()


@pytest.mark.parametrize(("L", "window"), [(1, 1), (1, 4), (3, 5), (7, 3), (13, 4)])
def test_window_sums_have_the_gradients_of_finite_differences(L: int, window: int) -> None:
    k, v, lags, _ = draw(L, window, seed=3)
    signals = [x.requires_grad_() for x in (k, v, lags.T.exp().contiguous())]
    assert torch.autograd.gradcheck(_WindowSums.apply, (*signals, k.detach().cummax(1).values))


@pytest.mark.parametrize(
    ("v", "near", "decay"),
    [((2, 4, 3), (4, 1), (3,)), ((2, 5, 3), (3, 1), (3,)), ((2, 4, 3), (3, 0), (3,)),
     ((2, 4, 3), (3, 1), (1,))],
)  # fmt: skip
def test_shapes_that_do_not_match_raise(
    v: tuple[int, ...], near: tuple[int, ...], decay: tuple[int, ...]
) -> None:
    k, values, lags, fall = torch.zeros(2, 4, 3), *(torch.zeros(x) for x in (v, near, decay))
    with pytest.raises(ConfigError, match=r"expected \(B, L, D\) twice, \(D, W\) and \(D,\)"):
        exp_average_reference(k, values, lags, fall)
    if decay == (3,):
        with pytest.raises(ConfigError, match=r"expected \(B, L, D\) twice"):
            windowed_average(k, values, lags)
    if near[1] == 1:
        with pytest.raises(ConfigError, match=r"expected \(B, L, D\) twice"):
            decayed_average(k, values, lags[:, 0], fall)
