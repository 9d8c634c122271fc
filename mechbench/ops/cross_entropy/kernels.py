"""Kernel of `mechbench.ops.cross_entropy`: loss, gradient and right answers in one pass."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 4096  # numbers in a tile of rows


@triton.jit(do_not_specialize=["N"])
def _kernel(
    logits, targets, grad, losses, counts, N, V, IGNORE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    mask = (row < N)[:, None] & (column < V)[None, :]
    at = row[:, None] * V + column[None, :]
    target = tl.load(targets + row, mask=row < N, other=IGNORE)
    scored = target != IGNORE
    x = tl.load(logits + at, mask=mask, other=float("-inf")).to(tl.float32)
    x = tl.where((row < N)[:, None], x, 0.0)
    top = tl.max(x, 1)
    shifted = tl.exp(x - top[:, None])
    total = tl.sum(shifted, 1)
    hit = column[None, :] == target[:, None]
    chosen = tl.sum(tl.where(hit, x, 0.0), 1)
    loss = tl.where(scored, top + tl.log(total) - chosen, 0.0)
    right = scored & (tl.argmax(x, 1, tie_break_left=True) == target)
    derivative = tl.where(scored[:, None], shifted / total[:, None] - hit.to(tl.float32), 0.0)
    tl.store(grad + at, derivative.to(grad.dtype.element_ty), mask=mask)
    tl.store(losses + tl.program_id(0), tl.sum(loss))
    tl.store(counts + tl.program_id(0) * 2, tl.sum(right.to(tl.int64)))
    tl.store(counts + tl.program_id(0) * 2 + 1, tl.sum(scored.to(tl.int64)))


def loss_and_gradient(logits: Tensor, targets: Tensor, ignore: int) -> tuple[Tensor, ...]:
    """Return the summed loss, its gradient (N, V) and (2,) int64 right and scored rows."""
    logits, targets = logits.contiguous(), targets.contiguous()
    N, V = logits.shape
    columns = triton.next_power_of_2(V)
    rows = max(1, _TILE // columns)
    programs = triton.cdiv(N, rows)
    grad = torch.empty_like(logits)
    losses = torch.empty(programs, dtype=torch.float32, device=logits.device)
    counts = torch.empty(programs, 2, dtype=torch.int64, device=logits.device)
    _kernel[(programs,)](
        logits, targets, grad, losses, counts, N, V, IGNORE=ignore, ROWS=rows, COLUMNS=columns
    )
    return losses.sum(), grad, counts.sum(0)
