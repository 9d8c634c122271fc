"""Baselines of a task: the accuracy of shortcuts and short windows that do not solve it."""

from __future__ import annotations

import torch
from torch import Tensor

from mechbench.record.seeds import derive
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch, Task, matches

STANDARD_ERROR = 0.005  # largest standard error of a sampled accuracy
_POSITIONS = 1 << 17  # most scored positions looked at; their standard error is 0.0014
_FEWEST = 1000  # fewest positions looked at before a small standard error may end the search
_COPIED = 1024  # windows at least this long are copied one by one: few fit into a block
_BLOCK_TOKENS = 1 << 20  # tokens of windows given to the oracle at once
_FREE_TOKENS = 1 << 21  # tokens per window length before a small standard error may end the search


def shortcut_accuracies(task: Task, batch: Batch) -> dict[str, float]:
    """Return the accuracy of each shortcut on the scored positions of `batch`."""
    scored = batch.targets != IGNORE
    guesses = {name: predict(batch.inputs) for name, predict in task.shortcuts.items()}
    return {
        name: matches(guess, batch.targets, batch.also)[scored].double().mean().item()
        for name, guess in guesses.items()
    }


def windows(input_seqlen: int) -> list[int]:
    """Return the window lengths W to report: 16, 32, ... below L_in, then L_in."""
    return [*(w for w in (1 << i for i in range(4, 31)) if w < input_seqlen), input_seqlen]


def required_context(task: Task, batch: Batch) -> dict[int, float]:
    """Return {W: accuracy of the best guess from the last W tokens}.

    The window of W tokens ends at the scored position and includes it, like the reach of a causal
    filter of W taps. The guess is the oracle's answer where these tokens determine it, and that of
    `window_guess` elsewhere; a task without one scores chance there.

    All scored positions are used unless that is too much work: above 2^17 positions, or 2^21 tokens
    in windows of one length, a random sample is taken (uniform over scored positions, the same each
    time), with a standard error below 0.5 percent.
    """
    rows, columns = (batch.targets != IGNORE).nonzero(as_tuple=True)
    generator = torch.Generator().manual_seed(derive(0, "required context", repr(task)))
    order = torch.randperm(len(rows), generator=generator)[:_POSITIONS].to(rows.device)
    rows, columns = rows[order], columns[order]
    answers = batch.targets[rows, columns]
    also = None if batch.also is None else batch.also[rows, columns]
    score = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    told = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    # Where the window holds everything before a position, the whole example's answers apply.
    whole = _answers(task, batch.inputs)[rows, columns]
    found = {}
    for window in windows(batch.inputs.shape[1]):
        # What a window decides, a longer one decides too: continue with the undecided positions.
        undecided = (~told).nonzero().flatten()
        size = max(1, _BLOCK_TOKENS // window)
        n = len(rows)
        for start in range(0, len(undecided), size):
            these = undecided[start : start + size]
            at = rows[these], columns[these]
            sure, guess = _guesses(task, batch.inputs, *at, whole[these], window)
            accepted = None if also is None else also[these]
            right = matches(guess, answers[these], accepted).double()
            score[these] = torch.where(guess == UNKNOWN, task.chance, right)
            told[these] = sure
            done = start + size
            if done < len(undecided) and done * window >= _FREE_TOKENS:
                n = int(undecided[done])  # those before are all decided or guessed
                if n >= _FEWEST and score[:n].std().item() < STANDARD_ERROR * n**0.5:
                    break
                n = len(rows)
        found[window] = score[:n].sum().item() / max(n, 1)
    return found


def _answers(task: Task, inputs: Tensor) -> Tensor:
    """Return the oracle's answers, computed a few rows at a time."""
    size = max(1, _BLOCK_TOKENS // inputs.shape[1])
    starts = range(0, len(inputs), size)
    return torch.cat([task.oracle(inputs[start : start + size]) for start in starts])


def _windows(inputs: Tensor, rows: Tensor, ends: Tensor, window: int) -> Tensor:
    """Return the `window` tokens of each row before `ends`."""
    if window < _COPIED:
        return inputs.unfold(1, window, 1)[rows, ends - window].movedim(-1, 1).contiguous()
    pieces = zip(rows.tolist(), ends.tolist(), strict=True)
    return torch.stack([inputs[row, end - window : end] for row, end in pieces])


def _guesses(
    task: Task, inputs: Tensor, rows: Tensor, columns: Tensor, whole: Tensor, window: int
) -> tuple[Tensor, Tensor]:
    """Return where `window` tokens determine the answer at (row, column), and the best guesses.

    `whole` holds the answers from all tokens.
    """
    guess = whole.clone()
    cut = columns + 1 > window
    if not cut.any():
        return guess != UNKNOWN, guess
    rows, columns = rows[cut], columns[cut]
    seen = _windows(inputs, rows, columns + 1, window)
    best = task.oracle(seen)[:, -1].clone()
    guess[cut] = best
    sure = guess != UNKNOWN
    open_ = best == UNKNOWN
    if open_.any():
        seen = seen if open_.all() else seen[open_]
        best[open_] = task.window_guess(seen, columns[open_]).to(best.dtype)
        guess[cut] = best
    return sure, guess
