"""Linear attention with a scalar decay per head and step, in chunks.

    S_t = exp(g_t) S_{t-1} + k_t v_t^T,   y_t = S_t^T q_t
        = sum_{s <= t} exp(g_{s+1} + .. + g_t) (q_t . k_s) v_s

Source: Dao & Gu 2024 (arXiv:2405.21060), section 6 (block decomposition of the semiseparable
matrix); without decay, Katharopoulos et al. 2020; with a constant decay, Sun et al. 2023.
On a GPU fused Triton kernels compute it where the types and widths allow.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mechbench.ops.affine_scan import affine_scan, before
from mechbench.ops.backends import pick
from mechbench.ops.decay_attention import fla_backend
from mechbench.ops.precision import product_precision
from mechbench.ops.triton import beside, unavailable, without_room


def decay_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None = None,
    chunk: int = 64,
    *,
    scale: Tensor | None = None,
    skip: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Compute y of the module docstring, in O(L (chunk + K) P) time and O(L) memory per head.

    With a scale w and a skip d, of w_s v_s, plus d v_t.

    Args:
        q: (B, H, L, K); with 1 in place of H it is shared by all heads.
        k: as q.
        v: (B, H, L, P).
        log_decay: g, at most 0, of a shape that broadcasts to (B, H, L); None for no decay.
        chunk: positions computed as one matrix; one state is kept per chunk. The kernels choose
            their own.
        scale: w, (B, H, L); None for 1.
        skip: d, (H,); None for 0.
        backend: "auto", "triton", "torch" or "fla": see `mechbench.ops.backends`.

    Returns:
        (B, H, L, P) in the dtype of `v` (without kernels that to which scale, skip and v promote);
        products and states are float32 or wider. Under autocast
        the kernels round the factors of a product to TF32 (10 bits, where bfloat16 has 7).

    Raises:
        ConfigError: no such backend, or it cannot take the inputs.
    """
    chosen = pick(
        "decay_attention",
        v,
        backend,
        triton=lambda: unavailable(q, k, v) or without_room(v, q.shape[-1], v.shape[-1]),
        fla=lambda: fla_backend.unsupported(q, k, v, log_decay),
    )
    if chosen == "fla":
        return fla_backend.attend(q, k, v, log_decay, scale, skip)
    if chosen == "triton":
        args = q, k, v, log_decay, scale, skip
        out: Tensor = _Fused.apply(*args)  # type: ignore[no-untyped-call]
        return out
    y = _in_chunks(q, k, v if scale is None else v * scale[..., None], log_decay, chunk)
    return y if skip is None else y + skip[:, None, None] * v


def _in_chunks(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, chunk: int) -> Tensor:
    L = v.shape[-2]
    with torch.autocast("cuda" if v.is_cuda else "cpu", enabled=False):
        wide = torch.promote_types(v.dtype, torch.float32)
        g = v.new_zeros(1, 1, L) if log_decay is None else log_decay
        qc, kc, vc = (into_chunks(x.to(wide), chunk) for x in (q, k, v))  # (B, H, N, C, ..)
        gc = into_chunks(g.to(wide).expand(*g.shape[:-1], L)[..., None], chunk)[..., 0].cumsum(-1)
        y = (qc @ kc.transpose(-1, -2) * decay_matrix(gc)) @ vc  # inside each chunk
        end = gc[..., -1:]  # (B, H, N, 1)
        added = (kc * (end - gc).exp()[..., None]).transpose(-1, -2) @ vc  # (B, H, N, K, P)
        states = before(affine_scan(end.exp()[..., None], added), vc.shape[-3])
        y = y + (qc * gc.exp()[..., None]) @ states
        return y.flatten(-3, -2)[..., :L, :].to(v.dtype)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        g: Tensor | None,
        scale: Tensor | None,
        skip: Tensor | None,
    ) -> Tensor:
        from mechbench.ops.decay_attention.kernels import forward

        ctx.shapes = q.shape, k.shape, None if g is None else g.shape
        ctx.precision = product_precision(v)
        q, k = (beside(x).expand(*v.shape[:-1], -1) for x in (q, k))
        v = beside(v)
        g = None if g is None else g.expand(v.shape[:-1])
        skip = None if skip is None else skip.contiguous()
        y, states = forward(q, k, v, g, scale, skip, ctx.precision)
        ctx.save_for_backward(q, k, v, g, scale, skip, states)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        from mechbench.ops.decay_attention.kernels import backward

        q, k, v, g, scale, skip, states = ctx.saved_tensors
        need_g = g is not None and ctx.needs_input_grad[3]
        rest = states, beside(dy), ctx.precision, need_g
        of = backward(q, k, v, g, scale, skip, *rest)
        q_shape, k_shape, g_shape = ctx.shapes
        return (
            of.q.sum_to_size(q_shape),
            of.k.sum_to_size(k_shape),
            of.v,
            None if of.g is None else of.g.sum_to_size(g_shape).to(g.dtype),
            None if of.w is None else of.w.to(scale.dtype),
            None if of.skip is None else of.skip.to(skip.dtype),
        )


def decay_attention_matrix(q: Tensor, k: Tensor, log_decay: Tensor | None = None) -> Tensor:
    """Return the matrix with which `decay_attention` maps v to y: (B, H, L, L), for a small L."""
    scores = q @ k.transpose(-1, -2)
    g = q.new_zeros(1, 1, q.shape[-2]) if log_decay is None else log_decay
    return scores * decay_matrix(g.expand(*g.shape[:-1], q.shape[-2]).cumsum(-1))


def decay_attention_reference(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None = None
) -> Tensor:
    """Compute `decay_attention` step by step: for tests."""
    B, H, L, P = v.shape
    g = (v.new_zeros(()) if log_decay is None else log_decay).expand(B, H, L)
    state, out = v.new_zeros(B, H, k.shape[-1], P), []
    for t in range(L):
        state = state * g[..., t, None, None].exp() + k[:, :, t, :, None] * v[:, :, t, None, :]
        out.append((q[:, :, t, :, None] * state).sum(-2))
    return torch.stack(out, -2)


def decay_matrix(g: Tensor) -> Tensor:
    """Return exp(g_t - g_s) for s <= t, else 0: cumulative log decays (.., C) to (.., C, C)."""
    lag = g[..., :, None] - g[..., None, :]
    future = torch.ones(lag.shape[-2:], dtype=torch.bool, device=g.device).triu(1)
    # Masked before exp, which may overflow above the diagonal; infinity times 0 is NaN.
    return lag.masked_fill(future, float("-inf")).exp()


def into_chunks(x: Tensor, chunk: int) -> Tensor:
    """Return x (B, H, L, K), padded with zeros, as (B, H, N, C, K), where C is at most L."""
    L = x.shape[-2]
    C = min(chunk, L)
    return torch.unflatten(F.pad(x, (0, 0, 0, -L % C)), -2, (-1, C))
