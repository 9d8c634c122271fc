from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.kernels.pieces import PIECE, at, correlated, earlier, earlier_after, times
from ops.conftest import relative_error


@triton.jit
def shifted_kernel(x, out, L, PIECES: tl.constexpr):
    """Store x one token earlier and two, its correlation, and what precedes the last token."""
    t = times(0, 0, 8, PIECES)
    after = at(x, 0.0, times(0, 8, 2, PIECES), L)
    value = at(x, 0.0, t, L)
    one, two = earlier(at(x, 0.0, times(0, -2, 2, PIECES), L), value)
    tl.store(out + t, one)
    tl.store(out + 8 * PIECES + t, two)
    tl.store(out + 16 * PIECES + t, correlated(value, after, 2.0, 3.0, 5.0))
    one, two = earlier_after(value, after)
    pair = 2 * tl.arange(0, PIECES)[:, None] + tl.arange(0, 2)[None, :]
    tl.store(out + 24 * PIECES + pair, one)
    tl.store(out + 26 * PIECES + pair, two)


@triton.jit
def plus_half_kernel(x, out, MASKED: tl.constexpr):
    t = times(0, 0, 8, 2)
    tl.store(out + t, at(x, 0.5, t, 16, MASKED))


def moved(x: Tensor, tokens: int, n: int) -> Tensor:
    """Return x_{t - tokens} for t < n, zeros beyond either end."""
    t = torch.arange(n, device=x.device) - tokens
    inside = (t >= 0) & (t < len(x))
    return torch.where(inside, x[t.clamp(0, len(x) - 1)], 0.0)


@pytest.mark.parametrize("L", [1, 7, 8, 9, 30, 32])
def test_neighbours_are_those_in_memory(kernel_device: str, L: int) -> None:
    pieces = 4
    n = pieces * PIECE
    x = torch.randn(L, device=kernel_device)
    out = torch.full((28 * pieces,), torch.nan, device=kernel_device)
    shifted_kernel[(1,)](x, out, L, PIECES=pieces)
    one, two, sums, after = out.split([n, n, n, 4 * pieces])
    assert torch.equal(one, moved(x, 1, n))
    assert torch.equal(two, moved(x, 2, n))
    want = 2 * moved(x, 0, n) + 3 * moved(x, -1, n) + 5 * moved(x, -2, n)
    assert relative_error(sums, want) < 1e-6
    for i, got in enumerate(after.view(2, pieces, 2)):
        assert torch.equal(got, moved(x, i + 1, n + 2)[PIECE:].unfold(0, 2, PIECE))


def test_times_known_to_be_inside_need_no_mask(kernel_device: str) -> None:
    x = torch.randn(16, device=kernel_device)
    outs = [torch.empty_like(x) for _ in range(2)]
    for masked, out in enumerate(outs):
        plus_half_kernel[(1,)](x, out, MASKED=bool(masked))
        assert torch.equal(out, x + 0.5)
