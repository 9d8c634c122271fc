"""Random expressions in prefix notation, and their values, for many rows at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mechbench.tasks.distinct import draw_wide
from mechbench.tasks.modulo import floats_for, reduce_

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


def slots(operation: Tensor) -> Tensor:
    """Return (B, T) int64: twice the place above each one, plus 1 on its right; of the first 2 T.

    Args:
        operation: (B, T) bool, where operations stand in prefix expressions.
    """
    import torch

    T = operation.shape[1]
    step = 2 * operation.int() - 1
    due = step.cumsum(1, dtype=torch.int32) - step  # expressions still due before each, less one
    # A left operand stands behind its operation. A right one is the next place with as many due:
    # those of one number are sorted alike, whichever type holds them.
    order = (due.short() if T < 1 << 15 else due).sort(dim=1, stable=True).indices
    right = torch.empty_like(order).scatter_(1, order, (2 * order + 1).roll(1, 1))
    left = 2 * torch.arange(T - 1, device=operation.device)
    found = torch.full_like(right, 2 * T)
    found[:, 1:] = torch.where(operation[:, :-1], left, right[:, 1:])
    return found


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
    # Each place has a slot, under the one above. Place T and the slots 2 T and 2 T + 1 are nowhere.
    slot = pad(slots(operation), (0, 1), value=2 * T)
    below = slot.new_empty(B, 2 * T + 2).scatter_(1, slot[:, :T], place)
    below[:, 2 * T :] = T
    dtype, _ = floats_for(modulus**3 + modulus**2)
    numbers = pad(content.to(dtype), (0, 1))
    sign = (numbers == 0).to(dtype) - (numbers == 1).to(dtype)  # 1, -1 and 0 for + - x
    # What a place passes on is factor times its value, plus shift, which is all for an operand.
    shift = numbers.mul_(pad(~operation, (0, 1)))
    factor = torch.ones_like(shift)
    nth = (~operation).cumsum(1).masked_fill_(operation, T // 2 + 2) - 1
    leaves = place.new_empty(B, T // 2 + 2).scatter_(1, nth, place)[:, :-1]  # operands in order
    while leaves.shape[1] > 1:
        odd = leaves[:, 1::2].contiguous()
        known, there = shift.gather(1, odd), slot.gather(1, odd)
        right = (there & 1) == 1
        for now in (0, 1) if leaves.shape[1] > 2 else (1,):  # the second of two is on the right
            mine = there.masked_fill(~right if now else right, 2 * T)  # the rest is done in vain
            top, other = mine >> 1, below.gather(1, mine ^ 1)
            outer, plus = factor.gather(1, top), sign.gather(1, top)
            added = plus * plus
            multiplied = known - added * known
            if now:  # the other plus or minus what is known
                slope, offset = multiplied + added, plus * known
            else:
                slope, offset = multiplied + plus, added * known
            inner = offset.addcmul_(slope, shift.gather(1, other))
            passed = inner.mul_(outer).add_(shift.gather(1, top))
            shift.scatter_(1, other, reduce_(passed, modulus))
            slope.mul_(outer).mul_(factor.gather(1, other))
            factor.scatter_(1, other, reduce_(slope, modulus))
            higher = slot.gather(1, top)
            slot.scatter_(1, other, higher)
            below.scatter_(1, higher, other)
        leaves = leaves[:, ::2]
    return shift.gather(1, leaves)[:, 0].long()
