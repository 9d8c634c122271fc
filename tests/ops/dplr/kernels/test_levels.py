from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from mechbench.ops.dplr.kernels.levels import factors, together

C, K = 32, 16


@triton.jit
def _store_kernel(
    falls, q_out, a_out, written_out, pairs_out, level,
    LATE: tl.constexpr, C: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    i, c = tl.arange(0, C), tl.arange(0, K)
    of_q, of_a, written = factors(falls, i, level, K, K, LATE, C, K)
    place = i[:, None] * K + c[None, :]
    tl.store(q_out + place, of_q)
    tl.store(a_out + place, of_a)
    tl.store(written_out + place, written)
    mine = together(i, level)
    tl.store(pairs_out + i[:, None] * C + i[None, :], tl.where(mine, 1.0, 0.0))


@pytest.mark.parametrize("late", [False, True])
def test_levels_share_out_all_pairs_and_give_their_decays(kernel_device: str, late: bool) -> None:
    steps = -25 * torch.rand(C, K, generator=torch.Generator().manual_seed(0)) ** 3
    falls = torch.cat([torch.zeros(1, K), steps.cumsum(0)]).to(kernel_device)
    after, before = falls[1:], falls[1:] if late else falls[:-1]
    seen = torch.zeros(C, C, device=kernel_device)
    for level in range(2, 5):
        of_q, of_a, written = (torch.empty(C, K, device=kernel_device) for _ in range(3))
        pairs = torch.empty(C, C, device=kernel_device)
        _store_kernel[(1,)](falls, of_q, of_a, written, pairs, level, LATE=late, C=C, K=K)
        seen += pairs
        t, s = pairs.nonzero().unbind(1)
        decay = torch.exp2(after[t] - after[s])
        torch.testing.assert_close(of_q[t] * written[s], decay, rtol=1e-4, atol=1e-6)
        t, s = (pairs.tril(-1)).nonzero().unbind(1)
        decay = torch.exp2(before[t] - after[s])
        torch.testing.assert_close(of_a[t] * written[s], decay, rtol=1e-4, atol=1e-6)
        largest = max(x.max().item() for x in (of_q, of_a, written))
        assert largest <= (2.0**100 if level == 2 else 1)
    assert torch.equal(seen, torch.ones_like(seen).tril())
