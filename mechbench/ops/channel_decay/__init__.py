"""Linear attention with a decay per key channel and step, in chunks.

    S_t = diag(exp(g_t)) S_{t-1} + k_t v_t^T,   y_t = S_t^T q_t
        = sum_{s <= t} sum_c q_tc k_sc exp(g_{s+1,c} + .. + g_tc) v_s

Source: Yang et al. 2023 (arXiv:2312.06635), sections 4.1 to 4.3: recurrence and chunks. Within a
chunk the weights cannot be one product (q exp(G)) (k exp(-G))^T, because exp(-G) overflows. Where
the paper cuts a chunk into blocks (section 4.3), we halve it again and again: what the second half
reads from the first is one product of factors that decay to and from the middle, both at most 1. On
a GPU fused Triton kernels do so where the types and widths allow.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mechbench.ops.affine_scan import affine_scan, before
from mechbench.ops.decay_attention import into_chunks
from mechbench.ops.precision import product_precision
from mechbench.ops.triton import beside, state_fits, unavailable
from mechbench.ops.used import noted

_PAIRWISE = 4  # positions of a block whose pairs are computed one by one


def channel_decay_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    chunk: int = 64,
    *,
    scale: float | None = None,
    temperature: float | None = None,
) -> Tensor:
    """Compute y of the module docstring: O(L (chunk + K) P) time, O(L log(chunk)) memory per head.

    Args:
        q: (B, H, L, K).
        k: (B, H, L, K).
        v: (B, H, L, P).
        log_decay: g, (B, H, L, K), at most 0; with `temperature`, what g is computed from.
        chunk: positions computed as one matrix; one state is kept per chunk. The kernels choose
            their own.
        scale: factor of q; None for 1.
        temperature: if given, g = logsigmoid(log_decay) / temperature (the paper, section 4).

    Returns:
        (B, H, L, P) in the dtype of `v`; products and states are float32 or wider. Under autocast
        the kernels round the factors of a product to TF32 (10 bits, where bfloat16 has 7).
    """
    fits = unavailable(q, k, v, log_decay) is None and state_fits(v, q.shape[-1], v.shape[-1])
    if noted("channel_decay", v, fits):
        out: Tensor = _Fused.apply(  # type: ignore[no-untyped-call]
            q, k, v, log_decay, 1.0 if scale is None else scale, temperature
        )
        return out
    L = v.shape[-2]
    with torch.autocast("cuda" if v.is_cuda else "cpu", enabled=False):
        wide = torch.promote_types(v.dtype, torch.float32)
        q, k, v_wide, g = (x.to(wide) for x in (q, k, v, log_decay))
        q = q if scale is None else q * scale
        g = log_decays(g, temperature)
        qc, kc, vc, gc = (into_chunks(x, chunk) for x in (q, k, v_wide, g))
        gc = gc.cumsum(-2)  # (B, H, N, C, K)
        end = gc[..., -1:, :]  # (B, H, N, 1, K)
        added = (kc * (end - gc).exp()).transpose(-1, -2) @ vc  # (B, H, N, K, P)
        states = before(affine_scan(end.exp().transpose(-1, -2), added), vc.shape[-3])
        y = channel_decay_scores(qc, kc, gc) @ vc + (qc * gc.exp()) @ states
        return y.flatten(-3, -2)[..., :L, :].to(v.dtype)


def log_decays(x: Tensor, temperature: float | None) -> Tensor:
    """Return x, or with a temperature logsigmoid(x) / temperature in float32 or wider."""
    if temperature is None:
        return x
    return F.logsigmoid(x.to(torch.promote_types(x.dtype, torch.float32))) / temperature


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        g: Tensor,
        scale: float,
        temperature: float | None,
    ) -> Tensor:
        from mechbench.ops.channel_decay.kernels import forward

        ctx.options = float(scale), temperature, product_precision(v)
        q, k, v, g = (beside(x) for x in (q, k, v, g))
        y, *kept = forward(q, k, v, g, *ctx.options)
        ctx.save_for_backward(q, k, v, g, *kept)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        from mechbench.ops.channel_decay.kernels import backward

        q, k, v, g, states, ends = ctx.saved_tensors
        grads = backward(q, k, v, g, states, ends, beside(dy), *ctx.options)
        return (*grads, None, None)


def channel_decay_scores(q: Tensor, k: Tensor, g: Tensor, *, strict: bool = False) -> Tensor:
    """Return sum_c q_tc k_sc exp(g_tc - g_sc) for s <= t, else 0, without overflow.

    Args:
        q: (.., C, K).
        k: (.., C, K); leading axes broadcast.
        g: cumulative log decays, (.., C, K), falling along C.
        strict: whether q_t reads the state before step t: exp(g_{t-1,c} - g_sc) for s < t, else 0.

    Returns:
        (.., C, C).
    """
    C, block = q.shape[-2], _PAIRWISE
    while block < C:
        block *= 2
    if block > C:
        missing = (0, 0, 0, block - C)
        last = g[..., -1:, :].expand(*g.shape[:-2], block - C, g.shape[-1])
        q, k = (F.pad(x, missing) for x in (q, k))
        g = torch.cat([g, last], -2)
    g_read = F.pad(g, (0, 0, 1, -1)) if strict else g
    return _halved(q, k, g_read, g, 0 if strict else 1)[..., :C, :C]


def _halved(q: Tensor, k: Tensor, g_read: Tensor, g: Tensor, unseen: int) -> Tensor:
    """Compute `channel_decay_scores` of _PAIRWISE times a power of two positions.

    Position t reads at the cumulative log decays g_read_t what is at most t - 1 + `unseen`.
    """
    C = q.shape[-2]
    if C == _PAIRWISE:
        lag = g_read[..., :, None, :] - g[..., None, :, :]  # (.., C, C, K)
        future = torch.ones(C, C, dtype=torch.bool, device=g.device).triu(unseen)
        # Masked before exp, which may overflow above the diagonal; infinity times 0 is NaN.
        decay = lag.masked_fill(future[..., None], float("-inf")).exp()
        return (q[..., :, None, :] * k[..., None, :, :] * decay).sum(-1)
    q, k, g_read, g = (torch.unflatten(x, -2, (2, C // 2)) for x in (q, k, g_read, g))
    own = _halved(q, k, g_read, g, unseen)  # (.., 2, C / 2, C / 2)
    middle = g[..., 0, -1:, :]  # (.., 1, K)
    reads = q[..., 1, :, :] * (g_read[..., 1, :, :] - middle).exp()
    kept = k[..., 0, :, :] * (middle - g[..., 0, :, :]).exp()
    across = reads @ kept.transpose(-1, -2)  # (.., C / 2, C / 2)
    first = torch.cat([own[..., 0, :, :], torch.zeros_like(across)], -1)
    second = torch.cat([across, own[..., 1, :, :]], -1)
    return torch.cat([first, second], -2)


def channel_decay_reference(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    """Compute `channel_decay_attention` step by step: for tests."""
    B, H, L, P = v.shape
    state, out = v.new_zeros(B, H, k.shape[-1], P), []
    for t in range(L):
        state = state * log_decay[:, :, t, :, None].exp()
        state = state + k[:, :, t, :, None] * v[:, :, t, None, :]
        out.append((q[:, :, t, :, None] * state).sum(-2))
    return torch.stack(out, -2)
