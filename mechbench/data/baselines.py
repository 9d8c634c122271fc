"""Baselines of a task: what shortcuts and short windows score without solving it."""

from __future__ import annotations

import torch
from torch import Tensor

from mechbench.record.seeds import derive
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch, Task, matches

STANDARD_ERROR = 0.005  # of a sampled accuracy, at most
_POSITIONS = 1 << 17  # scored positions to look at, at most; alone they err by 0.0014
_FEWEST = 1000  # positions to look at before the standard error may end it
_COPIED = 1024  # tokens of a window that is copied as a piece: few such are put through at once
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
    # Where the window holds all that stands before a position, the whole example's answers serve.
    whole = _answers(task, batch.inputs)[rows, columns]
    found = {}
    for window in windows(batch.inputs.shape[1]):
        # What a window tells, a longer one tells too: go on with the undecided positions.
        undecided = (~told).nonzero().flatten()
        size = max(1, _BLOCK_TOKENS // window)
        n = len(rows)
        for start in range(0, len(undecided), size):
            these = undecided[start : start + size]
            at = rows[these], columns[these]
            sure, guess = _guesses(task, batch.inputs, *at, whole[these], window)
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


def _answers(task: Task, inputs: Tensor) -> Tensor:
    """Return the oracle's answers, some rows at a time."""
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
    """Return where `window` tokens tell the answer at (row, column), and the best guesses.

    `whole` are the answers from all tokens.
    """
    guess = whole.clone()
    cut = columns + 1 >= window
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
