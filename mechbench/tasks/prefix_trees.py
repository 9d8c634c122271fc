"""Random expressions in prefix notation, and their values, for many rows at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mechbench.tasks.distinct import draw_wide
from mechbench.tasks.previous_occurrence import previous_occurrence

if TYPE_CHECKING:
    import torch
    from torch import Tensor

N_OPERATIONS = 3  # + - x, in this order
MOST = 1000  # largest modulus; its third power has 31 bits


def draw_shapes(rows: int, n: int, generator: torch.Generator) -> Tensor:
    """Return (rows, 2 n + 1) bool: where operations stand in a prefix expression with n of them.

    All binary trees are equally likely: of the rotations of any order of n operations and n + 1
    operands, exactly one is an expression (cycle lemma). It begins behind the first place at which
    operands are furthest ahead.
    """
    import torch

    length = 2 * n + 1
    chosen = draw_wide((rows, length), generator).topk(n, sorted=False).indices
    operation = torch.zeros(rows, length, dtype=torch.bool, device=generator.device)
    operation.scatter_(1, chosen, True)
    place = torch.arange(length, device=generator.device)
    ahead = (2 * operation.long() - 1).cumsum(1)
    turned = (ahead * length + place).argmin(1, keepdim=True) + 1 + place
    return operation.gather(1, torch.where(turned < length, turned, turned - length))


def parents(operation: Tensor) -> Tensor:
    """Return (B, T) int64: the place of each one's parent, of the first -1."""
    import torch

    step = 2 * operation.long() - 1
    due = step.cumsum(1) - step  # expressions still due before each place, less one
    behind = torch.nn.functional.pad(operation, (1, 0))[:, :-1]  # a left operand, or operation
    place = torch.arange(operation.shape[1], device=operation.device)
    return torch.where(behind, place - 1, previous_occurrence(due))


def values(operation: Tensor, content: Tensor, modulus: int) -> Tensor:
    """Return (B,): the values of prefix expressions modulo a number.

    Every round takes away each second of the remaining operands, in order, with the operation above
    it: what the other side of that operation passes on is then an affine function of its value,
    which takes the operation's place. No two of them are neighbours, so that those on a left side
    go at once, and then those on a right side. After log2 rounds only the first operand is left.

    Args:
        operation: (B, T) bool, where operations stand; T = 2 n + 1, with n in each row.
        content: (B, T) int64, operands in [0, modulus), and operations in [0, 3): + - x.
        modulus: the answers are modulo this, at most MOST.
    """
    import torch

    B, T = operation.shape
    pad = torch.nn.functional.pad
    place = torch.arange(T, device=operation.device).expand(B, T)
    # Each place has a slot: the place above, doubled, and 1 on a right side. Slot 2 T is nowhere.
    above = parents(operation)
    right = above != place - 1
    slot = pad((2 * above + right).where(above >= 0, 2 * T), (0, 1))
    below = slot.new_full((B, 2 * T + 1), T).scatter_(1, slot[:, :T], place)
    # What a place passes on is factor times its value, plus shift, which is all for an operand. To
    # subtract is to add what is passed on negatively, so that + and x are left.
    content = content.int()
    negative = right & (content.gather(1, above.clamp_min(0)) == 1)
    factor = torch.where(negative, modulus - 1, 1).int()
    shift = torch.where(negative & (content > 0), modulus - content, content)
    shift = shift.where(~operation, 0)
    factor, shift, times = pad(factor, (0, 1)), pad(shift, (0, 1)), content == 2
    nth = torch.where(operation, T // 2 + 1, (~operation).cumsum(1) - 1)
    leaves = place.new_zeros(B, T // 2 + 2).scatter_(1, nth, place)[:, :-1]  # operands in order
    while leaves.shape[1] > 1:
        odd = leaves[:, 1::2].contiguous()
        known = shift.gather(1, odd)
        for now in (0, 1) if leaves.shape[1] > 2 else (1,):  # the second of two is on the right
            there = slot.gather(1, odd)
            mine = (there & 1) == now
            other = below.gather(1, there ^ 1).where(mine, T)  # T is written in vain
            top = there >> 1
            x = times.gather(1, top)
            outer = factor.gather(1, top)
            slope = torch.where(x, known, 1) * outer
            offset = torch.where(x, 0, known) * outer + shift.gather(1, top)
            shift.scatter_(1, other, (slope * shift.gather(1, other) + offset) % modulus)
            factor.scatter_(1, other, slope * factor.gather(1, other) % modulus)
            higher = slot.gather(1, top)
            slot.scatter_(1, other, higher)
            below.scatter_(1, higher.where(mine, 2 * T), other)
        leaves = leaves[:, ::2]
    return shift.gather(1, leaves)[:, 0].long()
