"""Kernels for what gates do to a whole sequence: sums from its start, reach, sums from its end."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.kernels.chunks import block, head_at, rows, strides

_LOG2_E = tl.constexpr(1.4426950408889634)
_NOTHING = tl.constexpr(-160.0)  # below 2^-150 float32 has only 0; and room for rounding
_SCAN = tl.constexpr(128)  # blocks looked at together


@triton.jit
def _log_sigmoid(x):
    """Return log(sigmoid(x)), exact near 0 too: log(1 + e) = 2 atanh(e / (2 + e)) as a series."""
    e = tl.exp(-tl.abs(x))
    z = e / (2.0 + e)  # at most 1/3
    s = z * z
    tail = 1.0 / 9 + s * (1.0 / 11 + s * (1.0 / 13 + s * (1.0 / 15 + s * (1.0 / 17))))
    series = 1.0 + s * (1.0 / 3 + s * (1.0 / 5 + s * (1.0 / 7 + s * tail)))
    return tl.minimum(x, 0.0) - 2.0 * z * series


@triton.jit
def longest_norm(x):
    """Return the largest norm of the rows of x."""
    x = x.to(tl.float32)
    return tl.sqrt(tl.max(tl.sum(x * x, 1), 0))


@triton.jit
def _prepare_kernel(
    gate, k, within, start, longest, gb, gh, gt, kb, kh, kt, L, H, heads, blocks,
    LOGITS: tl.constexpr, K: tl.constexpr, BK: tl.constexpr, R: tl.constexpr, SPAN: tl.constexpr,
):  # fmt: skip
    """Store w and c_i of one head, or the longest key of one block."""
    pid = tl.program_id(0)
    if pid < heads:
        gate = head_at(gate, pid // H, pid % H, gb, gh)
        within, start = within + pid.to(tl.int64) * blocks * R, start + pid * blocks
        total = tl.zeros((1,), tl.float64)
        for i in range(tl.cdiv(L, SPAN)):
            t = i * SPAN + tl.arange(0, SPAN)
            step = tl.load(gate + t.to(tl.int64) * gt, mask=t < L, other=0.0).to(tl.float32)
            if LOGITS:
                step = tl.where(t < L, _log_sigmoid(step), 0.0)
            step = step.to(tl.float64) * _LOG2_E
            c = tl.reshape(total + tl.cumsum(step, 0), (SPAN // R, R))
            head = tl.sum(tl.where((tl.arange(0, R) == 0)[None, :], c, 0.0), 1)
            n = i * (SPAN // R) + tl.arange(0, SPAN // R)
            tl.store(start + n, head, mask=n < blocks)
            at = n[:, None] * R + tl.arange(0, R)[None, :]
            tl.store(within + at, (c - head[:, None]).to(tl.float32), mask=at < blocks * R)
            total += tl.sum(step, 0)
    else:
        item = pid - heads
        row, j = item // blocks, item % blocks
        own = (j * R + tl.arange(0, R)).to(tl.int64)
        keys = rows(head_at(k, row // H, row % H, kb, kh), own, L, kt, K, BK)
        tl.store(longest + item, longest_norm(keys))


@triton.jit
def first_needed(start, longest, i, reach):
    """Return the first block whose keys may have weight for the queries of block i.

    No query's logits add up to less than that of its own key, which is at least -reach |k|.
    """
    here, own, first = tl.load(start + i), tl.load(longest + i), i
    for a in range(0, i, _SCAN):
        j = a + tl.arange(0, _SCAN)
        lost = here - tl.load(start + j + 1, mask=j < i, other=0.0)  # at least, and at most 0
        norm = tl.load(longest + j, mask=j < i, other=0.0) + own
        empty = reach * norm + lost.to(tl.float32) < _NOTHING
        first = tl.minimum(first, tl.min(tl.where(empty | (j >= i), i, j), 0))
    return first


@triton.jit
def last_needing(first, j, blocks):
    """Return the last block whose queries may give weight to the keys of block j."""
    last = j
    for a in range(j + 1, blocks, _SCAN):
        i = a + tl.arange(0, _SCAN)
        begin = tl.load(first + i, mask=i < blocks, other=blocks)
        last = tl.maximum(last, tl.max(tl.where(begin <= j, i, j), 0))
    return last


@triton.jit
def _gate_kernel(
    dc, gate, out, gb, gh, gt, ob, oh, ot, L, M, H, LOGITS: tl.constexpr, SPAN: tl.constexpr
):
    """Sum dc from the end: the gradient of log f, or of the logits of f."""
    head = tl.program_id(0)
    dc += head.to(tl.int64) * M
    gate = head_at(gate, head // H, head % H, gb, gh)
    out = head_at(out, head // H, head % H, ob, oh)
    later = tl.zeros((1,), tl.float64)
    for i in range(tl.cdiv(L, SPAN)):
        t = L - 1 - i * SPAN - tl.arange(0, SPAN)
        step = tl.load(dc + t, mask=t >= 0, other=0.0).to(tl.float64)
        grad = (later + tl.cumsum(step, 0)).to(tl.float32)
        later += tl.sum(step, 0)
        if LOGITS:
            x = tl.load(gate + t.to(tl.int64) * gt, mask=t >= 0, other=0.0).to(tl.float32)
            grad *= tl.sigmoid(-x)
        tl.store(out + t.to(tl.int64) * ot, grad.to(out.dtype.element_ty), mask=t >= 0)


def cumulated_gates(gate: Tensor, k: Tensor, R: int, logits: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return w (B, H, blocks R), c (B, H, blocks) and the longest key of each block, as c.

    Args:
        gate: (B, H, L) of any strides: log f, or with `logits` what f is the sigmoid of.
        k: (B, H, L, K); the last stride is 1.
        R: tokens in a block.
        logits: see `gate`.
    """
    B, H, L, K = k.shape
    blocks = triton.cdiv(L, R)
    within = k.new_empty(B, H, blocks * R, dtype=torch.float32)
    start = k.new_empty(B, H, blocks, dtype=torch.float64)
    longest = k.new_empty(B, H, blocks, dtype=torch.float32)
    _prepare_kernel[(B * H * (1 + blocks),)](
        gate, k, within, start, longest, *gate.stride(), *strides(k), L, H, B * H, blocks,
        LOGITS=logits, K=K, BK=block(K), R=R, SPAN=_span(L, R), num_warps=4,
    )  # fmt: skip
    return within, start, longest


def gate_gradient(dc: Tensor, gate: Tensor, out: Tensor, logits: bool) -> None:
    """Write the gradient of gate (B, H, L), as in `cumulated_gates`, from dc (B, H, at least L)."""
    B, H, L = gate.shape
    _gate_kernel[(B * H,)](
        dc, gate, out, *gate.stride(), *out.stride(), L, dc.shape[-1], H,
        LOGITS=logits, SPAN=_span(L, 1), num_warps=4,
    )  # fmt: skip


def _span(L: int, R: int) -> int:
    return max(R, min(1024, triton.next_power_of_2(L)))
