"""The gated delta rule, in chunks: a state that decays, and overwrites what a key held.

    S_t = (I - beta_t k_t k_t^T) diag(exp(g_t)) S_{t-1} + beta_t k_t v_t^T,   y_t = S_t^T q_t

with one g_t a head, or one for each of its key channels.
Source: Yang, Kautz & Hatamizadeh 2024 (arXiv:2412.06464), equation 10 and section 3.3 (WY form of
a chunk); the ungated rule: Yang et al. 2024 (arXiv:2406.06484); a decay per key channel: Kimi Team
2025 (arXiv:2510.26692), equations 1 to 9. With k of norm 1 the matrix
I - beta k k^T has the eigenvalue 1 - beta along k and 1 elsewhere: beta 1 overwrites what k held,
beta 2 turns it into its negative (Grazzi et al. 2024, arXiv:2411.12537), and for beta from 0 to 2
no state grows. Within a chunk that starts at S, with G_t = g_1 + .. + g_t,

    S_t = diag(exp(G_t)) S + sum_{s <= t} (exp(G_t - G_s) k_s) w_s^T
    (I + T) w = beta (v - (exp(G) k) S),   T_ts = beta_t k_t . (exp(G_t - G_s) k_s) for s < t

so solving one triangular system per chunk gives w = from_v - from_state S, and the chunk is an
affine map of S. On a GPU fused Triton kernels compute it where the types and widths allow; with a
decay per key channel those of `dplr`, of which the rule is then a special case.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mechbench.ops.affine_scan import affine_scan, before
from mechbench.ops.backends import pick
from mechbench.ops.channel_decay import channel_decay_scores
from mechbench.ops.decay_attention import decay_matrix, into_chunks
from mechbench.ops.delta_rule import fla_backend
from mechbench.ops.dplr import fused
from mechbench.ops.precision import product_precision
from mechbench.ops.triton import beside, unavailable, without_room


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    beta: Tensor,
    chunk: int = 64,
    backend: str = "auto",
) -> Tensor:
    """Compute y of the module docstring: O(L (chunk + K) (K + P)) time, O(L) memory per head.

    Args:
        q: (B, H, L, K).
        k: (B, H, L, K), of norm at most 1, otherwise states may grow.
        v: (B, H, L, P).
        log_decay: g, (B, H, L) or, per key channel, (B, H, L, K), at most 0; None for no decay.
        beta: (B, H, L), how much of what the key held is taken away, from 0 (none) over 1 (all of
            it) to 2 (twice as much: a reflection).
        chunk: positions computed as one matrix; one state is kept per chunk. The kernels choose
            their own.
        backend: "auto", "triton", "torch" or "fla": see `mechbench.ops.backends`.

    Returns:
        (B, H, L, P) in the dtype of `v` (without kernels that to which q and v promote); products
        and states are float32 or wider, as in
        `decay_attention`.

    Raises:
        ConfigError: no such backend, or it cannot take the inputs.
    """
    L, K = k.shape[-2:]
    chosen = _pick(q, k, v, log_decay, backend)
    if chosen == "fla":
        return fla_backend.rule(q, k, v, log_decay, beta)
    log_decay = _decays(log_decay, beta)
    if chosen == "triton":
        if log_decay.ndim == 4:
            return fused(q, k, v, None, beta, log_decay)
        return _fused(q, k[:, :, :, None], v[:, :, :, None], log_decay, beta)
    v = v.to(torch.promote_types(q.dtype, v.dtype))
    with torch.autocast("cuda" if v.is_cuda else "cpu", enabled=False):
        wide = torch.promote_types(v.dtype, torch.float32)
        qc, kc, vc = (into_chunks(x.to(wide), chunk) for x in (q, k, v))  # (B, H, N, C, ..)
        bc = into_chunks(beta.to(wide)[..., None], chunk)  # (B, H, N, C, 1)
        gc = into_chunks(_columns(log_decay).to(wide), chunk).cumsum(-2)  # (B, H, N, C, 1 or K)
        read, system = _scores(qc, kc, gc, bc)  # (B, H, N, C, C) each
        told = torch.cat([bc * vc, bc * gc.exp() * kc], -1)
        from_v, from_state = torch.linalg.solve_triangular(
            system, told, upper=False, unitriangular=True
        ).split([v.shape[-1], K], -1)  # (B, H, N, C, P), (B, H, N, C, K)
        end = gc[..., -1:, :]  # (B, H, N, 1, 1 or K)
        kept = (kc * (end - gc).exp()).transpose(-1, -2)  # (B, H, N, K, C)
        eye = torch.eye(K, dtype=wide, device=v.device)
        states = affine_scan(end.exp() * eye - kept @ from_state, kept @ from_v)
        states = before(states, vc.shape[-3])  # (B, H, N, K, P)
        w = from_v - from_state @ states
        out: Tensor = ((qc * gc.exp()) @ states + read @ w).flatten(-3, -2)[..., :L, :]
        return out.to(v.dtype)


def delta_product(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    beta: Tensor,
    chunk: int = 64,
    backend: str = "auto",
) -> Tensor:
    """Compute the rule with n steps a token, one after the other; a query reads after the last.

    Args:
        q: (B, H, L, K).
        k: (B, H, L, n, K), of norm at most 1.
        v: (B, H, L, n, P).
        log_decay: (B, H, L n), at most 0; None for no decay.
        beta: (B, H, L n).
        chunk: steps computed as one matrix.
        backend: as for `delta_rule`, of the steps one by one.

    Returns:
        (B, H, L, P), in the dtype that `delta_rule` has.

    Raises:
        ConfigError: no such backend, or it cannot take the inputs.
    """
    n = k.shape[3]
    chosen = _pick(q, k, v, log_decay, backend)
    if chosen == "triton":
        return _fused(q, k, v, _decays(log_decay, beta), beta)
    q = F.pad(q[..., None, :], (0, 0, n - 1, 0))  # zero but at the last step of a token
    q, k, v = (x.flatten(2, 3) for x in (q, k, v))
    return delta_rule(q, k, v, log_decay, beta, chunk, chosen)[:, :, n - 1 :: n]


def _pick(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, backend: str) -> str:
    return pick(
        "delta_rule",
        v,
        backend,
        triton=lambda: unavailable(q, k, v) or without_room(v, k.shape[-1], v.shape[-1]),
        fla=lambda: fla_backend.unsupported(q, k, v, log_decay),
    )


def _fused(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
    y: Tensor = _Fused.apply(q, k, v, g, beta)  # type: ignore[no-untyped-call]
    return y


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
        from mechbench.ops.delta_rule.kernels.forward import forward

        ctx.precision = product_precision(v)
        q, k, v = (beside(x) for x in (q, k, v))
        y, *kept = forward(q, k, v, g, beta, ctx.precision)
        ctx.save_for_backward(q, k, v, g, beta, *kept)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        from mechbench.ops.delta_rule.kernels.backward import backward

        q, k, v, g, beta, inverses, states, turns = ctx.saved_tensors
        kept = inverses, states, turns, beside(dy), ctx.precision
        grads = backward(q, k, v, g, beta, *kept)
        return tuple(d.to(x.dtype) for d, x in zip(grads, (q, k, v, g, beta), strict=True))


def delta_rule_matrix(q: Tensor, k: Tensor, log_decay: Tensor | None, beta: Tensor) -> Tensor:
    """Return the matrix with which `delta_rule` maps v to y: (B, H, L, L), for a small L."""
    g = _columns(_decays(log_decay, beta)).cumsum(-2)
    read, system = _scores(q, k, g, beta[..., None])
    w = torch.linalg.solve_triangular(
        system, torch.diag_embed(beta), upper=False, unitriangular=True
    )
    matrix: Tensor = read @ w
    return matrix


def _decays(log_decay: Tensor | None, beta: Tensor) -> Tensor:
    """Return the decays, zeros for none."""
    return beta.new_zeros(beta.shape) if log_decay is None else log_decay


def _columns(log_decay: Tensor) -> Tensor:
    """Return (B, H, L, 1) for one decay a head, else (B, H, L, K) as it is."""
    return log_decay if log_decay.ndim == 4 else log_decay[..., None]


def _scores(q: Tensor, k: Tensor, g: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Return how y_t reads w_s, and T, whose diagonal is never read: (.., C, C) each.

    Args:
        q: (.., C, K).
        k: (.., C, K).
        g: cumulative log decays, (.., C, 1) or (.., C, K).
        beta: (.., C, 1).
    """
    if g.shape[-1] == 1:
        decay = decay_matrix(g[..., 0])
        return q @ k.transpose(-1, -2) * decay, beta * decay * (k @ k.transpose(-1, -2))
    read, own = channel_decay_scores(torch.stack([q, k]), k, g)
    return read, beta * own


def delta_rule_reference(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor
) -> Tensor:
    """Compute `delta_rule` step by step: for tests."""
    B, H, L, P = v.shape
    state, out = v.new_zeros(B, H, k.shape[-1], P), []
    for t in range(L):
        key, b = k[:, :, t, :, None], beta[:, :, t, None, None]  # (B, H, K, 1), (B, H, 1, 1)
        state = state * _columns(log_decay)[:, :, t, :, None].exp()
        held = (key * state).sum(-2, keepdim=True)  # (B, H, 1, P)
        state = state + b * key * (v[:, :, t, None, :] - held)
        out.append((q[:, :, t, :, None] * state).sum(-2))
    return torch.stack(out, -2)
