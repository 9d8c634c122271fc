"""What training a label cost, and how its rate was chosen, as lines of Markdown. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from mechbench.report.aggregate import Cost, Section
from mechbench.report.escape import markdown

_TRAINED, _NOTHING = "trained at", "-"
COST = (
    "cost, mean of seeds", _TRAINED, "parameters", "FLOPs/token", "training FLOPs", "training, s",
    "tokens/s", "peak memory, MiB", "device",
)  # fmt: skip
TRAINING = (
    "training, mean of seeds", _TRAINED, "training tokens", "steps to stop", "budget, tokens", "lr",
    "trials", "tokens of trials",
)  # fmt: skip


def cost_tables(section: Section, names: dict[str, str]) -> tuple[list[list[list[str]]], list[str]]:
    """Return the lines of two tables, their headings first, and what is the same in all rows.

    Args:
        section: with points.
        names: of the labels, as Markdown.
    """
    costs: list[list[str]] = [list(COST)]
    training: list[list[str]] = [list(TRAINING)]
    for label, points in section.curves.items():
        trained: dict[int, Cost] = {p.trained_seqlen: p.cost for p in points}
        for length, cost in sorted(trained.items()):
            if cost.results:  # else planned, not run
                costs.append([names[label], str(length), *_cost(cost)])
                training.append([names[label], str(length), *_training(cost)])
    found, same = [], dict[str, str]()
    for lines in (costs, training):
        kept, common = _without_common(lines)
        found += [kept] if len(kept[0]) > 1 else []
        same |= common
    return found, [f"{name} {value}" for name, value in same.items()]


def _without_common(lines: Sequence[Sequence[str]]) -> tuple[list[list[str]], dict[str, str]]:
    """Return the lines without columns that say nothing, or one thing in several rows, and these.

    What says nothing is not among these.
    """
    head, *rows = lines
    values = [{row[i] for row in rows} for i in range(len(head))]
    empty = {i for i, found in enumerate(values) if found == {_NOTHING}}
    common = {i for i, found in enumerate(values) if i and len(found) == 1 < len(rows)}
    kept = [[cell for i, cell in enumerate(line) if i not in empty | common] for line in lines]
    return kept, {head[i]: rows[0][i] for i in sorted(common - empty)}


def _cost(cost: Cost) -> list[str]:
    return [
        _count(cost.parameters),
        _count(cost.flops_per_token),
        _NOTHING if cost.train_flops is None else f"{cost.train_flops:.3g}",
        _NOTHING if cost.train_s is None else f"{cost.train_s:,.1f}",
        _count(cost.tokens_per_s),
        _count(cost.peak_memory_mib),
        markdown(cost.devices),
    ]


def _training(cost: Cost) -> list[str]:
    return [
        _count(cost.train_tokens),
        _count(cost.steps),
        _count(cost.budget_tokens),
        cost.lr + (" (edge)" if cost.lr_at_edge else ""),
        str(cost.tuning_trials) if cost.tuning_trials else _NOTHING,
        _count(cost.tuning_tokens) if cost.tuning_trials else _NOTHING,
    ]


def _count(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:,.0f}"
