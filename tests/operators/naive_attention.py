"""Softmax attention with rotary positions, written naively: what its fast kinds must compute."""

from __future__ import annotations

import cmath
import math

import torch
from torch import Tensor

from mechbench.operators.multihead import MultiHead


def by_hand(op: MultiHead, u: Tensor) -> Tensor:
    """Return the output for u (B, L, D), key by key, over the operator's window."""
    L, D = u.shape[1:]
    d, base = D // op.n_heads, op.rotary_base
    q, k, v = (u @ op.qkv.weight.T + op.qkv.bias).split(D, -1)
    mixed = torch.zeros_like(u)
    for b in range(len(u)):
        for head in range(op.n_heads):
            part = slice(head * d, (head + 1) * d)
            for t in range(L):
                seen = range(max(0, t + 1 - (op.window or L)), t + 1)
                query = turn(q[b, t, part], t, base)
                scores = [
                    math.exp(float(query @ turn(k[b, s, part], s, base)) / math.sqrt(d))
                    for s in seen
                ]
                for s, score in zip(seen, scores, strict=True):
                    mixed[b, t, part] += score / sum(scores) * v[b, s, part]
    return mixed @ op.out_proj.weight.T + op.out_proj.bias


def turn(x: Tensor, position: int, base: float) -> Tensor:
    """Rotate feature pairs (i, i + d/2) as complex numbers."""
    half = len(x) // 2
    pairs = [
        complex(x[i], x[i + half]) * cmath.exp(1j * position * base ** (-i / half))
        for i in range(half)
    ]
    return torch.tensor([p.real for p in pairs] + [p.imag for p in pairs], dtype=torch.float64)
