"""Which learning rate stands for a label. No torch.

By the cells that are there to choose it (`mechbench.report.tuning`); where there are none, as until
protocol 2, by the validation accuracy of those reported, at equal budgets.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mechbench.record.results import NOT_RUN
from mechbench.report.rows import Row, identity
from mechbench.report.tuning import tuned_lr, tuning_key


@dataclass(frozen=True)
class Trial:
    """What selection may look at of one trained model: nothing of the test examples."""

    lr: float
    seed: int
    status: str
    validation_accuracy: float | None
    train_tokens: int


def select_lr(trials: Iterable[Trial]) -> float:
    """Return the learning rate with the highest mean validation accuracy.

    Only the seeds that every rate was tried with count, so that the chosen rate's further seeds
    give it no advantage; what failed or diverged counts as 0. Of equals the one that took fewer
    training tokens is chosen, then the lower one.

    Raises:
        ValueError: there is no trial.
    """
    by_lr: dict[float, dict[int, Trial]] = defaultdict(dict)
    for trial in trials:
        by_lr[trial.lr][trial.seed] = trial
    if not by_lr:
        raise ValueError("no trial: expected at least one")
    common = set.intersection(*(set(seeds) for seeds in by_lr.values()))

    def merit(lr: float) -> tuple[float, float, float]:
        seeds = common or set(by_lr[lr])
        counted = [by_lr[lr][seed] for seed in sorted(seeds)]
        accuracies = [(t.validation_accuracy or 0.0) if t.status == "ok" else 0.0 for t in counted]
        return (
            -statistics.fmean(accuracies), statistics.fmean(t.train_tokens for t in counted), lr,
        )  # fmt: skip

    return min(by_lr, key=merit)


def trial(data: Mapping[str, Any]) -> Trial:
    """Return what selection may see of a stored result."""
    config = data["config"]
    return Trial(
        config["lr"], config["seed"], data["status"], data.get("validation_accuracy"),
        data.get("train_tokens") or 0,
    )  # fmt: skip


def selected(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of the selected learning rates, one a configuration, in the same order.

    Results of different budgets are of different configurations here: none is chosen over another.

    What was not run takes no part in a selection, and is kept with every rate. So are the cells
    that chose the rate, for the table to count them.
    """
    groups: dict[str, dict[str, Trial]] = defaultdict(dict)
    tuning: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    keys = [identity(row.config, without=("lr",)) for row in rows]
    for key, row in zip(keys, rows, strict=True):
        if row.status == NOT_RUN:
            continue
        if row.config.tunes:
            at_level = {**row.data, "config": row.config.to_dict()}
            found = tuning[tuning_key(row)].setdefault(row.data["cell_id"], at_level)
            if found["config"]["budget_tokens"] < row.config.budget_tokens:  # the furthest counts
                tuning[tuning_key(row)][row.data["cell_id"]] = at_level
        else:
            groups[key][row.data["cell_id"]] = trial(row.data)
    chosen = {key: select_lr(trials.values()) for key, trials in groups.items()}
    tuned = {key: tuned_lr(results.values()) for key, results in tuning.items()}
    return [
        row
        for key, row in zip(keys, rows, strict=True)
        if row.status == NOT_RUN
        or row.config.tunes
        or row.config.lr == (tuned.get(tuning_key(row)) or chosen[key])
    ]
