"""Scan of affine maps: S_n = a_n S_{n-1} + b_n, S_{-1} = 0, for every n.

Source: Blelloch 1990, "Prefix sums and their applications", recurrences as scans: affine maps
compose associatively, so neighbours are combined in pairs, the half-length scan is solved and its
states are spread over the full length again.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def affine_scan(a: Tensor, b: Tensor) -> Tensor:
    """Return every S_n, in O(log N) steps with O(N) work and memory in total.

    Args:
        a: (..., N, K, K) matrices, (..., N, K, 1) their diagonals, or (..., N, 1, 1) scalars;
            leading axes broadcast.
        b: (..., N, K, P).

    Returns:
        (..., N, K, P).
    """
    N = b.shape[-3]
    if N == 1:
        return b
    apply = torch.mul if a.shape[-1] == 1 else torch.matmul
    a_even, a_odd = a[..., 0::2, :, :], a[..., 1::2, :, :]
    b_even, b_odd = b[..., 0::2, :, :], b[..., 1::2, :, :]
    M = N // 2
    odd = affine_scan(
        apply(a_odd, a_even[..., :M, :, :]), apply(a_odd, b_even[..., :M, :, :]) + b_odd
    )  # (..., M, K, P)
    even = apply(a_even, before(odd, N - M)) + b_even  # (..., N - M, K, P)
    both = torch.stack([even[..., :M, :, :], odd], -3).flatten(-4, -3)  # (..., 2 M, K, P)
    return torch.cat([both, even[..., M:, :, :]], -3)


def before(states: Tensor, n: int) -> Tensor:
    """Return the state that each of the first `n` steps starts from: (..., n, K, P)."""
    return F.pad(states, (0, 0, 0, 0, 1, 0))[..., :n, :, :]


def affine_scan_reference(a: Tensor, b: Tensor) -> Tensor:
    """Compute `affine_scan` step by step: for tests."""
    state, states = torch.zeros_like(b[..., 0, :, :]), []
    for n in range(b.shape[-3]):
        a_n = a[..., n, :, :]
        state = (a_n * state if a.shape[-1] == 1 else a_n @ state) + b[..., n, :, :]
        states.append(state)
    return torch.stack(states, -3)
