"""The stages of a sweep that chooses learning rates, and what each costs, in words. No torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mechbench.plan.suite import Cell
from mechbench.record.config import Config
from mechbench.report.style import amount
from mechbench.sweep.choice import FINALISTS, parted, rungs_of
from mechbench.sweep.estimate import duration
from mechbench.sweep.halving import fewest
from mechbench.sweep.readings import up_to

Seconds = Callable[[Config], float]


@dataclass
class Stage:
    """A rung of the search, of all points of a suite together.

    Attributes:
        least_cells: that reach it if no rates are tied.
        most_cells: that reach it if all are.
        least_tokens: from the rung before, and `most_tokens`.
        most_tokens: see `least_tokens`; fewer where cells are solved.
        least_s: seconds of one worker, and `most_s`.
        most_s: see `least_s`.
    """

    least_cells: int = 0
    most_cells: int = 0
    least_tokens: int = 0
    most_tokens: int = 0
    least_s: float = 0.0
    most_s: float = 0.0


def stages(cells: Sequence[Cell], seconds: Seconds) -> list[Stage]:
    """Return the stages of the search with one seed, the last one at the whole budget.

    There are none where no rate is to be chosen.

    Args:
        cells: of the suite.
        seconds: that a configuration takes from its beginning.
    """
    scouts = [parted(group)[0] for group in _searches(cells)]
    searches = [(group, rungs_of(group)) for group in scouts]
    found = [Stage() for _ in range(max((len(rungs) for _, rungs in searches), default=0))]
    for group, rungs in searches:
        before_tokens, before_s = 0, 0.0
        # Points with fewer rungs than others end with them.
        for stage, rung, n in zip(
            found[len(found) - len(rungs) :], rungs, fewest(len(group), len(rungs)), strict=True
        ):
            to_s = seconds(up_to(group[0], rung).config)
            for least, count in ((True, n), (False, len(group))):
                _add(stage, least, count, rung - before_tokens, to_s - before_s)
            before_tokens, before_s = rung, to_s
    return found


def _searches(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Return the cells that choose a rate, by point."""
    groups: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        if cell.config.tunes:
            groups[cell.group].append(cell)
    return [*groups.values()]


def _finals(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells that other seeds may take to decide between the best rates, at most."""
    found = []
    for group in _searches(cells):
        others = parted(group)[1]
        rates = sorted({cell.config.lr for cell in others})[:FINALISTS]
        found += [cell for cell in others if cell.config.lr in rates]
    return found


def _add(stage: Stage, least: bool, cells: int, tokens: int, seconds: float) -> None:
    if least:
        stage.least_cells += cells
        stage.least_tokens += cells * tokens
        stage.least_s += cells * seconds
    else:
        stage.most_cells += cells
        stage.most_tokens += cells * tokens
        stage.most_s += cells * seconds


def stage_lines(cells: Sequence[Cell], seconds: Seconds) -> list[str]:
    """Return a line a stage, from the beginning of the sweep; none if no rate is to be chosen."""
    found = stages(cells, seconds)
    if not found:
        return []
    searches = _searches(cells)
    rates = sorted({cell.config.lr for group in searches for cell in group})
    lines = [
        f"learning rates: {len(parted(searches[0])[0])} for each of {len(searches)} "
        f"point{'s' if len(searches) > 1 else ''}, {rates[0]:g} to {rates[-1]:g}, tried with a "
        "seed that is not reported; from the beginning, at most:"
    ]
    for i, stage in enumerate(found):
        part = 1 << (len(found) - 1 - i)
        to = f"1/{part} of the budget" if part > 1 else "the budget"
        lines.append(
            f"  to {to:<18}{_span(str(stage.least_cells), str(stage.most_cells))} cells, "
            f"{_span(amount(stage.least_tokens), amount(stage.most_tokens))} tokens, "
            f"{_span(duration(stage.least_s), duration(stage.most_s))}"
        )
    if finals := [cell.config for cell in _finals(cells)]:
        lines.append(
            f"  {'other such seeds':<21}{_span('0', str(len(finals)))} cells, "
            f"{_span('0', amount(sum(c.budget_tokens for c in finals)))} tokens, "
            f"{_span(duration(0.0), duration(sum(seconds(c) for c in finals)))}, if rates are close"
        )
    reported = [cell.config for cell in cells if not cell.config.tunes]
    chosen = {(c.group, c.config.seed): c.config for c in cells if not c.config.tunes}
    if reported:
        lines.append(
            f"  {'reported seeds':<21}{len(chosen)} cells, "
            f"{amount(sum(c.budget_tokens for c in chosen.values()))} tokens, "
            f"{duration(sum(seconds(c) for c in chosen.values()))}"
        )
    return lines


def _span(least: str, most: str) -> str:
    return most if least == most else f"{least} to {most}"
