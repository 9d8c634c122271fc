"""Guesses that use no more than how often, where, or after what a token was seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mechbench.tasks.base import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Rule = Callable[[Tensor], Tensor]


def most_frequent(inputs: Tensor, low: int, high: int) -> Tensor:
    """Return (B, L): the row's most frequent token in [low, high), at every position."""
    import torch

    kept = ((inputs >= low) & (inputs < high)).float()
    counts = torch.zeros(len(inputs), high - low, device=inputs.device)
    counts.scatter_add_(1, (inputs - low).clamp(0, high - low - 1), kept)
    return counts.argmax(1, keepdim=True).expand_as(inputs) + low


def latest(inputs: Tensor, low: int, high: int) -> Tensor:
    """Return (B, L): the latest token in [low, high) up to each position, -1 before the first."""
    import torch

    position = torch.arange(inputs.shape[1], device=inputs.device)
    at = torch.where((inputs >= low) & (inputs < high), position, -1).cummax(1).values
    return torch.where(at >= 0, inputs.gather(1, at.clamp_min(0)), UNKNOWN)


def earliest(inputs: Tensor, low: int, high: int) -> Tensor:
    """Return (B, L): the row's first token in [low, high), at every position."""
    at = ((inputs >= low) & (inputs < high)).int().argmax(1, keepdim=True)
    return inputs.gather(1, at).expand_as(inputs)


def after_match(inputs: Tensor, length: int, low: int, high: int) -> Tensor:
    """Return (B, L): the token in [low, high) that last followed the same `length` tokens, else -1.

    It sorts, so the cost hardly depends on the length.
    """
    import torch

    n, L = int(inputs.max()) + 1, inputs.shape[1]
    if length > L:
        return torch.full_like(inputs, UNKNOWN)
    ids, bound = inputs.clone(), n
    for back in range(1, length):
        if bound * n >= 1 << 63:  # too large for int64: number what there is
            ids, bound = torch.unique(ids, return_inverse=True)[1], ids.numel()
        ids = ids * n
        ids[:, back:] += inputs[:, :-back]
        bound *= n
    ids[:, : length - 1] = -1
    source = torch.zeros_like(inputs, dtype=torch.bool)
    source[:, :-1] = (inputs[:, 1:] >= low) & (inputs[:, 1:] < high)
    order = ids.sort(stable=True, dim=1)
    index = torch.arange(L, device=inputs.device).expand_as(inputs)
    usable = torch.where(source.gather(1, order.indices), index, -1).cummax(1).values
    before = torch.nn.functional.pad(usable, (1, 0), value=-1)[:, :-1]
    there = before.clamp_min(0)
    found = (before >= 0) & (order.values.gather(1, there) == order.values) & (order.values >= 0)
    answer = inputs.gather(1, (order.indices.gather(1, there) + 1).clamp_max(L - 1))
    answer = torch.where(found, answer, UNKNOWN)
    return torch.empty_like(answer).scatter_(1, order.indices, answer)


def after_match_and_answers(inputs: Tensor, length: int, most: int, low: int, high: int) -> Tensor:
    """Return (B, L): like `after_match`, of `length` tokens and the answers since, else -1.

    Answers are up to `most` tokens in [low, high) in a row, of which the next is asked for.
    """
    import torch

    position = torch.arange(inputs.shape[1], device=inputs.device)
    other = (inputs < low) | (inputs >= high)
    since = position - torch.where(other, position, -1).cummax(1).values
    answer = torch.full_like(inputs, UNKNOWN)
    for n in range(most):
        answer = torch.where(since == n, after_match(inputs, length + n, low, high), answer)
    return answer


def backing_off(*rules: Rule) -> Rule:
    """Return the rule that guesses what the first of `rules` does that has a guess."""

    def guess(inputs: Tensor) -> Tensor:
        answer = rules[0](inputs)
        for rule in rules[1:]:
            answer = answer.where(answer != UNKNOWN, rule(inputs))
        return answer

    return guess


def last_of_key(part: int) -> str:
    """Name the rule that uses only the last `part` tokens of a key."""
    return f"value of the last {part} key tokens" if part > 1 else "value of the last key token"
