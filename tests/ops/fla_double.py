"""The functions of flash-linear-attention that are called, as loops over tokens of any dtype.

They are written from its documented arguments: (B, L, H, ..) tensors of one dtype, as many heads
of keys as of values, log decays (B, L, H) or of a head (H,), and a scale that is 1 / sqrt(K) unless
given. What they are not given as documented they refuse.
"""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor


def _check(q: Tensor, k: Tensor, v: Tensor, *per_head: Tensor | None) -> None:
    assert q.shape == k.shape
    assert k.shape[:3] == v.shape[:3]
    assert q.dtype == k.dtype == v.dtype
    assert all(x is None or x.shape == v.shape[:3] for x in per_head)


def chunk_simple_gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None = None,
    g_gamma: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, None]:
    _check(q, k, v, g)
    B, L, H, K = q.shape
    assert g is None or g_gamma is None
    assert g_gamma is None or g_gamma.shape == (H,)
    assert g_gamma is None or not g_gamma.requires_grad  # it would get none
    state, out = v.new_zeros(B, H, K, v.shape[3]), []
    for t in range(L):
        fall = g_gamma if g is None else g[:, t]
        kept = state if fall is None else state * fall.to(v.dtype).exp()[..., None, None]
        state = kept + torch.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        out.append(torch.einsum("bhk,bhkv->bhv", q[:, t], state))
    return torch.stack(out, 1) * (K**-0.5 if scale is None else scale), None


def chunk_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, scale: float | None = None
) -> tuple[Tensor, None]:
    return chunk_gated_delta_rule(q, k, v, torch.zeros_like(beta), beta, scale)


def chunk_gated_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, scale: float | None = None
) -> tuple[Tensor, None]:
    _check(q, k, v, g, beta)
    assert v.dtype != torch.float32
    B, L, H, K = q.shape
    state, out = v.new_zeros(B, H, K, v.shape[3]), []
    for t in range(L):
        state = state * g[:, t, :, None, None].exp().to(v.dtype)
        told = v[:, t] - torch.einsum("bhk,bhkv->bhv", k[:, t], state)
        told = told * beta[:, t, :, None].to(v.dtype)
        state = state + torch.einsum("bhk,bhv->bhkv", k[:, t], told)
        out.append(torch.einsum("bhk,bhkv->bhv", q[:, t], state))
    return torch.stack(out, 1) * (K**-0.5 if scale is None else scale), None


def fused_recurrent_rwkv4(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    B, L, D = k.shape
    assert w.shape == u.shape == (D,)
    assert v.shape == k.shape
    assert state.shape == (B, 3, 1, D)
    speed, out = w.exp(), []
    num, den, top = (x[:, 0] for x in state.unbind(1))
    for t in range(L):
        now = torch.maximum(top, u + k[:, t])
        past, own = (top - now).exp(), (u + k[:, t] - now).exp()
        out.append((past * num + own * v[:, t]) / (past * den + own))
        now = torch.maximum(top - speed, k[:, t])
        past, own = (top - speed - now).exp(), (k[:, t] - now).exp()
        num, den, top = past * num + own * v[:, t], past * den + own, now
    return torch.stack(out, 1), torch.stack([num, den, top], 1)[:, :, None]


def install(patch: pytest.MonkeyPatch) -> None:
    """Put the double in the place of the package, for tensors of any device and dtype."""
    for module, function in {
        "simple_gla": chunk_simple_gla,
        "delta_rule": chunk_delta_rule,
        "gated_delta_rule": chunk_gated_delta_rule,
        "rwkv4": fused_recurrent_rwkv4,
    }.items():
        made = ModuleType(f"fla.ops.{module}")
        setattr(made, function.__name__, function)
        patch.setitem(sys.modules, made.__name__, made)
    for name in ("fla", "fla.ops"):
        patch.setitem(sys.modules, name, ModuleType(name))
    patch.setattr("mechbench.ops.fla.missing", lambda: None)
    patch.setattr("mechbench.ops.fla.unavailable", lambda *_: None)
