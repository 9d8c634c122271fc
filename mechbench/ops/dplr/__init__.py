"""A state with diagonal plus low-rank transitions, in chunks.

    S_t = (diag(exp(g_t)) + b_t a_t^T) S_{t-1} + k_t v_t^T,   y_t = S_t^T q_t

The delta rule has a = -exp(g) k and b = beta k: there `delta_rule` needs half the work.

Source: Peng et al. 2025 (arXiv:2503.14456) for the recurrence; the chunks are those of the delta
rule (Yang et al. 2024, arXiv:2406.06484) with other factors. What step t adds along b_t is
p_t = S_{t-1}^T a_t. Within a chunk that starts at S, with G_t = g_1 + .. + g_t,

    S_t = diag(exp(G_t)) S + sum_{s <= t} (exp(G_t - G_s) b_s) p_s^T + (exp(G_t - G_s) k_s) v_s^T
    p_t = (exp(G_{t-1}) a_t)^T S + sum_{s < t} A^b_ts p_s + A^k_ts v_s
    A^b_ts = a_t . (exp(G_{t-1} - G_s) b_s),   A^k_ts = a_t . (exp(G_{t-1} - G_s) k_s)

so solving one triangular system per chunk gives p = from_v + from_state S, and the chunk is an
affine map of S. On a GPU fused Triton kernels compute it where the types and widths allow.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mechbench.ops.affine_scan import affine_scan, before
from mechbench.ops.channel_decay import channel_decay_scores
from mechbench.ops.decay_attention import into_chunks
from mechbench.ops.precision import product_precision
from mechbench.ops.triton import beside, state_fits, unavailable
from mechbench.ops.used import noted


def dplr(
    q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, log_decay: Tensor, chunk: int = 64
) -> Tensor:
    """Compute y of the module docstring: O(L (chunk + K) (K + P)) time, O(L) memory per head.

    Args:
        q: (B, H, L, K).
        k: (B, H, L, K).
        v: (B, H, L, P).
        a: (B, H, L, K); with b so small that no transition makes states grow.
        b: (B, H, L, K).
        log_decay: g, (B, H, L, K), at most 0.
        chunk: positions computed as one matrix; one state is kept per chunk. The kernels choose
            their own.

    Returns:
        (B, H, L, P) in the dtype of `v`; products and states are float32 or wider, as in
        `decay_attention`.
    """
    L, K = k.shape[-2:]
    fits = unavailable(q, k, v, a, b, log_decay) is None and state_fits(v, K, v.shape[-1])
    if noted("dplr", v, fits):
        return fused(q, k, v, a, b, log_decay)
    with torch.autocast("cuda" if v.is_cuda else "cpu", enabled=False):
        wide = torch.promote_types(v.dtype, torch.float32)
        qc, kc, vc, ac, bc = (into_chunks(x.to(wide), chunk) for x in (q, k, v, a, b))
        gc = into_chunks(log_decay.to(wide), chunk).cumsum(-2)  # (B, H, N, C, K)
        y_b, y_k, a_b, a_k = _scores(qc, kc, ac, bc, gc)  # (B, H, N, C, C) each
        told = torch.cat([a_k @ vc, ac * _earlier(gc).exp()], -1)
        from_v, from_state = torch.linalg.solve_triangular(
            -a_b, told, upper=False, unitriangular=True
        ).split([v.shape[-1], K], -1)  # (B, H, N, C, P), (B, H, N, C, K)
        end = gc[..., -1:, :]  # (B, H, N, 1, K)
        kept_b, kept_k = ((x * (end - gc).exp()).transpose(-1, -2) for x in (bc, kc))
        eye = torch.eye(K, dtype=wide, device=v.device)
        states = affine_scan(end.exp() * eye + kept_b @ from_state, kept_b @ from_v + kept_k @ vc)
        states = before(states, vc.shape[-3])  # (B, H, N, K, P)
        y = (qc * gc.exp()) @ states + y_b @ (from_v + from_state @ states) + y_k @ vc
        out: Tensor = y.flatten(-3, -2)[..., :L, :].to(v.dtype)
        return out


def fused(
    q: Tensor, k: Tensor, v: Tensor, a: Tensor | None, b: Tensor, log_decay: Tensor
) -> Tensor:
    """Compute `dplr` in kernels; without a, and with beta as b, the gated delta rule with key k."""
    y: Tensor = _Fused.apply(q, k, v, a, b, log_decay)  # type: ignore[no-untyped-call]
    return y


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, a: Tensor | None, b: Tensor, g: Tensor
    ) -> Tensor:
        from mechbench.ops.dplr.kernels.forward import forward

        ctx.precision = product_precision(v)
        q, k, v, g = (beside(x) for x in (q, k, v, g))
        a, b = (None, b) if a is None else (beside(a), beside(b))
        y, states, chunks = forward(q, k, v, a, b, g, ctx.precision)
        ctx.save_for_backward(q, k, v, a, b, g, states, *chunks)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        from mechbench.ops.dplr.kernels.backward import backward
        from mechbench.ops.dplr.kernels.forward import Chunks

        q, k, v, a, b, g, states, *chunks = ctx.saved_tensors
        return backward(q, k, v, a, b, g, states, Chunks(*chunks), beside(dy), ctx.precision)


def dplr_matrix(q: Tensor, k: Tensor, a: Tensor, b: Tensor, log_decay: Tensor) -> Tensor:
    """Return the matrix with which `dplr` maps v to y: (B, H, L, L), for a small L."""
    y_b, y_k, a_b, a_k = _scores(q, k, a, b, log_decay.cumsum(-2))
    p = torch.linalg.solve_triangular(-a_b, a_k, upper=False, unitriangular=True)
    matrix: Tensor = y_b @ p + y_k
    return matrix


def dplr_reference(
    q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, log_decay: Tensor
) -> Tensor:
    """Compute `dplr` step by step: for tests."""
    B, H, L, P = v.shape
    state, out = v.new_zeros(B, H, k.shape[-1], P), []
    for t in range(L):
        q_t, k_t, a_t, b_t, g_t = (x[:, :, t, :, None] for x in (q, k, a, b, log_decay))
        added = (a_t * state).sum(-2, keepdim=True)  # (B, H, 1, P)
        state = g_t.exp() * state + b_t * added + k_t * v[:, :, t, None, :]
        out.append((q_t * state).sum(-2))
    return torch.stack(out, -2)


def _scores(
    q: Tensor, k: Tensor, a: Tensor, b: Tensor, g: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return how y_t reads p_s and v_s, and A^b and A^k: (.., C, C) each."""
    added = torch.stack([b, k])
    y_b, y_k = channel_decay_scores(q, added, g).unbind()
    a_b, a_k = channel_decay_scores(a, added, g, strict=True).unbind()
    return y_b, y_k, a_b, a_k


def _earlier(g: Tensor) -> Tensor:
    """Return the cumulative log decays before each step, 0 at the start: (.., C, K)."""
    return F.pad(g, (0, 0, 1, -1))
