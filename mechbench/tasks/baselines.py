"""What a task gives away without being solved: shortcuts and short windows."""

from __future__ import annotations

from mechbench.tasks.base import IGNORE, UNKNOWN, Batch, Task, matches


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


def required_context(task: Task, batch: Batch, max_columns: int = 8) -> dict[int, float]:
    """Return {W: accuracy of the oracle that sees the last W tokens}; chance where it cannot tell.

    The window of W tokens ends at the scored position and includes it: what a causal filter of W
    taps reaches. Of the scored positions, at most `max_columns` evenly spaced ones are looked at.
    """
    columns = (batch.targets != IGNORE).any(0).nonzero().flatten().tolist()
    columns = columns[:: -(-len(columns) // max_columns)]
    length = batch.inputs.shape[1]
    right = dict.fromkeys(windows(length), 0.0)
    total = 0
    for column in columns:
        rows = batch.targets[:, column] != IGNORE
        inputs, answers = batch.inputs[rows, : column + 1], batch.targets[rows, column]
        total += len(answers)
        known_right = 0
        for window in right:
            guess = task.oracle(inputs[:, -window:])[:, -1]
            told = guess != UNKNOWN
            known_right += int(matches(guess[told], answers[told]).sum())
            # What a window tells, a longer one tells too: go on with the undecided examples.
            inputs, answers = inputs[~told], answers[~told]
            right[window] += known_right + len(answers) * task.chance
            if not len(answers):
                for longer in right:
                    if longer > window:
                        right[longer] += known_right
                break
    return {window: count / max(total, 1) for window, count in right.items()}
