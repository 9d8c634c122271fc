"""Baselines of a task: what shortcuts and short windows score without solving it."""

from __future__ import annotations

import torch
from torch import Tensor

from mechbench.record.seeds import derive
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch, Task, matches

STANDARD_ERROR = 0.005  # of a sampled accuracy, at most
_POSITIONS = 1 << 17  # scored positions to look at, at most; alone they err by 0.0014
_FEWEST = 1000  # positions to look at before the standard error may end it
_BLOCK_TOKENS = 1 << 20  # tokens of windows put through an oracle at once
_FREE_TOKENS = 1 << 21  # tokens of windows of one length until the standard error may end it


def shortcut_accuracies(task: Task, batch: Batch) -> dict[str, float]:
    """Return the accuracy of each shortcut on the scored positions of `batch`."""
    scored = batch.targets != IGNORE
    return {
        name: matches(predict(batch.inputs), batch.targets)[scored].double().mean().item()
        for name, predict in task.shortcuts.items()
    }


def windows(input_seqlen: int) -> list[int]:
    """Return the window lengths W to report: 16, 32, ... below L_in, then L_in."""
    return [*(w for w in (1 << i for i in range(4, 31)) if w < input_seqlen), input_seqlen]


def required_context(task: Task, batch: Batch) -> dict[int, float]:
    """Return {W: accuracy of the best guess from the last W tokens}.

    The window of W tokens ends at the scored position and includes it: what a causal filter of W
    taps reaches. The guess is the oracle's where these tokens tell the answer, elsewhere that of
    `window_guess`, or chance of a task without one.

    All scored positions are looked at, unless that is much work: above 2^17 positions, or 2^21
    tokens in windows of one length, a random sample of them (uniform over scored positions, the
    same each time) is, with a standard error below 0.5 percent.
    """
    rows, columns = (batch.targets != IGNORE).nonzero(as_tuple=True)
    generator = torch.Generator().manual_seed(derive(0, "required context", repr(task)))
    order = torch.randperm(len(rows), generator=generator)[:_POSITIONS].to(rows.device)
    rows, columns = rows[order], columns[order]
    answers = batch.targets[rows, columns]
    score = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    told = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    found = {}
    for window in windows(batch.inputs.shape[1]):
        # What a window tells, a longer one tells too: go on with the undecided positions.
        undecided = (~told).nonzero().flatten()
        size = max(1, _BLOCK_TOKENS // window)
        n = len(rows)
        for start in range(0, len(undecided), size):
            these = undecided[start : start + size]
            sure, guess = _guesses(task, batch.inputs, rows[these], columns[these], window)
            right = matches(guess, answers[these]).double()
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


def _guesses(
    task: Task, inputs: Tensor, rows: Tensor, columns: Tensor, window: int
) -> tuple[Tensor, Tensor]:
    """Return where `window` tokens tell the answer at (row, column), and the best guesses."""
    guess = inputs.new_full((len(rows),), UNKNOWN)
    cut = columns + 1 >= window
    short = ~cut
    if short.any():  # all that stands before them is in the window
        some, at = torch.unique(rows[short], return_inverse=True)
        prefix = inputs[some, : int(columns[short].max()) + 1]
        guess[short] = task.oracle(prefix)[at, columns[short]]
    if not cut.any():
        return guess != UNKNOWN, guess
    rows, columns = rows[cut], columns[cut]
    seen = inputs.unfold(1, window, 1)[rows, columns + 1 - window].movedim(-1, 1).contiguous()
    best = task.oracle(seen)[:, -1].clone()
    guess[cut] = best
    sure = guess != UNKNOWN
    open_ = best == UNKNOWN
    if open_.any():
        best[open_] = task.window_guess(seen[open_], columns[open_]).to(best.dtype)
        guess[cut] = best
    return sure, guess
