"""Fuzzy recall's best guess: what a pair cut by the window says about the value asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mechbench.tasks.base import UNKNOWN

if TYPE_CHECKING:
    from torch import Tensor


def cut_pair_guess(
    inputs: Tensor, at: Tensor, key_len: int, value_len: int, n_keys: int, n_values: int
) -> Tensor:
    """Return (B,): the likeliest answer after each window, -1 where all are equally likely.

    The pair that the window cuts is assumed to be an earlier pair of the current key, where that is
    possible. If its key is cut, what is left must be the end of the current key, and its value is
    visible. If its value is cut, any number of tokens may be hidden; every number consistent with
    what is shown of the current value is weighted by its probability. No value holds a token twice.

    Args:
        inputs: (B, W) windows: keys in [0, n_keys), then values, and padding above these.
        at: (B,) as for `Task.window_guess`.
        key_len: tokens in a key.
        value_len: most tokens in a value.
        n_keys: number of key tokens.
        n_values: number of value tokens.
    """
    import torch

    W, k, size, K, pad = inputs.shape[1], key_len, value_len, n_keys, n_keys + n_values
    if k > W:
        return torch.full_like(at, UNKNOWN)
    position = torch.arange(W, device=inputs.device)
    whole = (inputs < K).unfold(1, k, 1).all(2)
    end = torch.where(whole, position[k - 1 :], -1).amax(1)  # where the current key ends
    shown = W - 1 - end  # tokens of the current value so far
    known = (end >= 0) & (shown < size)
    left = (inputs >= K).int().argmax(1)  # tokens that remain of a cut key
    nth = torch.arange(size, device=inputs.device)

    def take(start: Tensor, length: Tensor, blank: int) -> Tensor:
        """Return (B, size): `length` tokens from `start` on, then blanks."""
        tokens = inputs.gather(1, (start[:, None] + nth).clamp(0, W - 1))
        return torch.where(nth < length[:, None], tokens, blank)

    current = take(end + 1, shown, -2)
    is_value = (inputs >= K) & (inputs < pad)
    run = is_value.gather(1, (left[:, None] + nth).clamp_max(W - 1)).int().cumprod(1).sum(1)
    tail = take(left, run, -3)
    cut = known & (left < k) & (run > 0) & (left + run <= end + 1 - k)
    own = (end + 1)[:, None] - left[:, None] + nth.new_tensor(range(k))  # key's end, from left
    same = inputs[:, :k] == inputs.gather(1, own.clamp(0, W - 1))
    cut &= (same | (nth.new_tensor(range(k)) >= left[:, None])).all(1)
    weight = torch.zeros(len(inputs), size, device=inputs.device)  # for the tokens of the tail
    other = torch.zeros(len(inputs), device=inputs.device)  # for each token not shown anywhere
    for hidden in range(size):
        whole_value = torch.cat([current[:, :hidden], tail], 1)[:, :size]
        fits = cut & (hidden + run <= size) & ((left == 0) | (hidden == 0))
        fits &= ((whole_value == current) | (nth >= shown[:, None]) | (nth < hidden)).all(1)
        fits &= (shown - hidden < run) & ~(
            (current[:, :hidden, None] == tail[:, None]).flatten(1).any(1)
        )
        seen = (shown.clamp_max(hidden) + run)[:, None]  # visible tokens of the value
        p = torch.where(nth < seen, 1 / (n_values - nth), 1.0).prod(1) * fits
        ahead = shown - hidden
        weight.scatter_add_(1, ahead.clamp(0, size - 1)[:, None], (p * (ahead >= 0))[:, None])
        unshown = (n_values - run - shown).clamp_min(1)
        other += p * (ahead < 0) / unshown
    best = weight.max(1)
    named = (best.values > 0) & (best.values >= other)
    taken = torch.cat([current, torch.where((other > 0)[:, None], tail, -3)], 1)
    fresh = torch.full_like(at, K)
    for value in range(K + 2 * size, K - 1, -1):
        fresh = torch.where((taken == value).any(1), fresh, value)
    guess = torch.where(named, tail.gather(1, best.indices[:, None])[:, 0], fresh)
    return torch.where(known, guess, UNKNOWN)
