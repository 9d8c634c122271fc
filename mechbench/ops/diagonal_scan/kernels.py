"""Fused kernels of `mechbench.ops.diagonal_scan`: one pass over gates and terms.

A program takes a block of channels of one sequence and walks over tiles of tokens; within a tile
the maps h -> a h + b are composed by a parallel scan (Blelloch 1990), from tile to
tile the state is carried. Where that makes too few programs, the sequence is cut into segments: a
first kernel composes each segment to one map, and in the second every program starts from the maps
of the segments before its own. The backward is the same walk from the end, with a_{t+1} for a_t.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 2048  # numbers of a tile
_ENOUGH = 256  # programs that keep a GPU busy


@triton.jit
def _compose(a, b, next_a, next_b):
    return a * next_a, next_a * b + next_b


@triton.jit
def _composed(gate, term, TOKENS: tl.constexpr):
    """Compose the maps of a tile from its start on; return all of them, and the last one."""
    gate, term = tl.associative_scan((gate, term), 0, _compose)
    last = (tl.arange(0, TOKENS) == TOKENS - 1)[:, None]
    return gate, term, tl.sum(tl.where(last, gate, 0.0), 0), tl.sum(tl.where(last, term, 0.0), 0)


@triton.jit
def _load(a, b, r, d, at, ad, bt, bd, L, D, BACK: tl.constexpr):
    """Load the maps r steps from the start, or from the end; beyond it, zeros."""
    mask = (r < L)[:, None] & (d < D)[None, :]
    t = r.to(tl.int64)[:, None]
    if BACK:
        t = L - 1 - t
        gate = tl.load(a + (t + 1) * at + d[None, :] * ad, mask=mask & (t + 1 < L), other=0.0)
    else:
        gate = tl.load(a + t * at + d[None, :] * ad, mask=mask, other=0.0)
    term = tl.load(b + t * bt + d[None, :] * bd, mask=mask, other=0.0)
    return t, mask, gate.to(tl.float32), term.to(tl.float32)


@triton.jit
def _maps_kernel(
    a, b, maps, ab, at, ad, bb, bt, bd, L, D, blocks, span, size,
    BACK: tl.constexpr, TOKENS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Store the map of every whole segment: its gate, and `size` numbers later its term."""
    segment, row = tl.program_id(1), (tl.program_id(0) // blocks).to(tl.int64)
    d = tl.program_id(0) % blocks * WIDTH + tl.arange(0, WIDTH)
    a, b = a + row * ab, b + row * bb
    kept, state = tl.full((WIDTH,), 1.0, tl.float32), tl.zeros((WIDTH,), tl.float32)
    for n in range(0, span, TOKENS):
        r = segment * span + n + tl.arange(0, TOKENS)
        _, _, gate, term = _load(a, b, r, d, at, ad, bt, bd, L, D, BACK)
        _, _, last_gate, last_term = _composed(gate, term, TOKENS)
        kept *= last_gate
        state = last_gate * state + last_term
    place = maps + (row * tl.num_programs(1) + segment) * D + d
    tl.store(place, kept, mask=d < D)
    tl.store(place + size, state, mask=d < D)


@triton.jit
def _scan_kernel(
    a, b, maps, h, out, d_gate, ab, at, ad, bb, bt, bd, L, D, blocks, span, size,
    BACK: tl.constexpr, TOKENS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Store every state in `out`; backwards, these times h one token earlier in `d_gate`."""
    segment, row = tl.program_id(1), (tl.program_id(0) // blocks).to(tl.int64)
    d = tl.program_id(0) % blocks * WIDTH + tl.arange(0, WIDTH)
    a, b = a + row * ab, b + row * bb
    first = row * L * D
    state = tl.zeros((WIDTH,), tl.float32)
    for n in range(0, segment, TOKENS):
        s = n + tl.arange(0, TOKENS)
        mask = (s < segment)[:, None] & (d < D)[None, :]
        place = maps + (row * tl.num_programs(1) + s)[:, None] * D + d[None, :]
        gate, term = tl.load(place, mask=mask, other=1.0), tl.load(place + size, mask, other=0.0)
        _, _, last_gate, last_term = _composed(gate, term, TOKENS)
        state = last_gate * state + last_term
    for n in range(0, span, TOKENS):
        r = segment * span + n + tl.arange(0, TOKENS)
        t, mask, gate, term = _load(a, b, r, d, at, ad, bt, bd, L, D, BACK)
        gate, term, last_gate, last_term = _composed(gate, term, TOKENS)
        states = gate * state[None, :] + term
        place = first + t * D + d[None, :]
        tl.store(out + place, states.to(out.dtype.element_ty), mask=mask)
        if BACK:
            before = tl.load(h + place - D, mask=mask & (t > 0), other=0.0).to(tl.float32)
            tl.store(d_gate + place, (states * before).to(d_gate.dtype.element_ty), mask=mask)
        state = last_gate * state + last_term


def _scan(a: Tensor, b: Tensor, h: Tensor, out: Tensor, d_gate: Tensor, *, back: bool) -> None:
    B, L, D = a.shape
    width, tokens, segments, span = sizes(B, L, D)
    blocks = triton.cdiv(D, width)
    maps = torch.empty(2, B, segments, D, device=a.device, dtype=torch.float32)
    grid = (B * blocks, segments)
    numbers = (*a.stride(), *b.stride(), L, D, blocks, span, maps[0].numel())
    tile = {"BACK": back, "TOKENS": tokens, "WIDTH": width, "num_warps": 4}
    if segments > 1:
        _maps_kernel[grid](a, b, maps, *numbers, **tile)
    _scan_kernel[grid](a, b, maps, h, out, d_gate, *numbers, **tile)


def sizes(B: int, L: int, D: int) -> tuple[int, int, int, int]:
    """Return a tile's channels and tokens, the number of segments, and the tokens of one."""
    width, segments = 32, 1
    if B * triton.cdiv(D, width) < _ENOUGH:
        if B * triton.cdiv(D, 16) >= _ENOUGH:
            width = 16  # still a whole sector of memory in every row
        else:
            segments = triton.cdiv(2 * _ENOUGH, B * triton.cdiv(D, width))
    width = min(width, triton.next_power_of_2(D))
    tokens = min(_TILE // width, triton.next_power_of_2(L))
    span = triton.cdiv(triton.cdiv(L, segments), tokens) * tokens
    return width, tokens, triton.cdiv(L, span), span


def forward(a: Tensor, b: Tensor) -> Tensor:
    """Return every h_t, (B, L, D), in the type of a product of a and b."""
    h = torch.empty(a.shape, device=a.device, dtype=torch.promote_types(a.dtype, b.dtype))
    _scan(a, b, h, h, h, back=False)
    return h


def backward(a: Tensor, h: Tensor, dh: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of a and b; h is contiguous."""
    da = torch.empty(a.shape, device=a.device, dtype=a.dtype)
    db = torch.empty(a.shape, device=a.device, dtype=dh.dtype)
    _scan(a, dh, h, db, da, back=True)
    return da, db
