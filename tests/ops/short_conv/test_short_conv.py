from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from mechbench.ops import short_conv, short_conv_reference, short_conv_tokens


def arguments(L: int, K: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(L * 100 + K)
    shapes = ((2, 3, L), (3, K), (3,))
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]


@given(L=st.integers(1, 20), K=st.integers(1, 6), biased=st.booleans())
def test_equals_the_reference(L: int, K: int, biased: bool) -> None:
    u, weight, bias = arguments(L, K)
    extra = bias if biased else None
    torch.testing.assert_close(
        short_conv(u, weight, extra), short_conv_reference(u, weight, extra), rtol=0, atol=1e-12
    )


def test_first_tap_has_lag_zero(device: str) -> None:
    impulse = torch.zeros(1, 1, 5, device=device)
    impulse[..., 1] = 1
    y = short_conv(impulse, torch.tensor([[1.0, 2.0, 3.0]], device=device))
    assert y.tolist() == [[[0, 1, 2, 3, 0]]]


def test_gradcheck() -> None:
    assert torch.autograd.gradcheck(short_conv, tuple(x.requires_grad_() for x in arguments(5, 3)))


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("K", [1, 4, 12])
def test_tokens_first_is_a_transposition(K: int, silu: bool) -> None:
    u, weight, bias = arguments(7, K)
    for extra in (None, bias):
        y = short_conv(u, weight, extra)
        got = short_conv_tokens(u.transpose(1, 2), weight, extra, silu)
        assert torch.equal(got.transpose(1, 2), F.silu(y) if silu else y)


def test_tokens_first_takes_weights_of_another_dtype() -> None:
    u, weight, bias = (x.bfloat16() for x in arguments(9, 4))
    tokens = u.transpose(1, 2)
    got = short_conv_tokens(tokens, weight.float(), bias.float())
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, short_conv_tokens(tokens, weight, bias))


def test_tokens_first_gradcheck() -> None:
    u, *rest = arguments(5, 3)
    args = [x.requires_grad_() for x in (u.transpose(1, 2), *rest)]
    assert torch.autograd.gradcheck(lambda *x: short_conv_tokens(*x, silu=True), args)
