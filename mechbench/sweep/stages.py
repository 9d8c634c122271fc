"""The stages of a sweep that chooses learning rates, and what each costs, in words. No torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mechbench.plan.suite import Cell
from mechbench.record.config import Config
from mechbench.report.style import amount
from mechbench.sweep.estimate import duration
from mechbench.sweep.halving import fewest
from mechbench.sweep.plan import rungs_of, up_to

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
    """Return the stages of the search, the last one at the whole budget; none without rates.

    Args:
        cells: of the suite.
        seconds: that a configuration takes from its beginning.
    """
    groups: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        if cell.config.tunes:
            groups[cell.group].append(cell)
    searches = [(group, rungs_of(group)) for group in groups.values()]
    found = [Stage() for _ in range(max((len(rungs) for _, rungs in searches), default=0))]
    for group, rungs in searches:
        n_rates = len({cell.config.lr for cell in group})
        n_seeds = len(group) // n_rates
        before_tokens, before_s = 0, 0.0
        # Points with fewer rungs than others end with them.
        for stage, rung, n in zip(
            found[len(found) - len(rungs) :], rungs, fewest(n_rates, len(rungs)), strict=True
        ):
            to_s = seconds(up_to(group[0], rung).config)
            for least, count in ((True, n * n_seeds), (False, len(group))):
                _add(stage, least, count, rung - before_tokens, to_s - before_s)
            before_tokens, before_s = rung, to_s
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
    tuning = [cell.config for cell in cells if cell.config.tunes]
    points = {cell.group for cell in cells if cell.config.tunes}
    rates = sorted({config.lr for config in tuning})
    seeds = {config.seed for config in tuning}
    each = len(tuning) // (len(points) * len(seeds))
    lines = [
        f"learning rates: {each} for each of {len(points)} "
        f"point{'s' if len(points) > 1 else ''}, {rates[0]:g} to {rates[-1]:g}, chosen with "
        f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''} that "
        f"{'are' if len(seeds) > 1 else 'is'} not reported; from the beginning, at most:"
    ]
    for i, stage in enumerate(found):
        part = 1 << (len(found) - 1 - i)
        to = f"1/{part} of the budget" if part > 1 else "the budget"
        lines.append(
            f"  to {to:<18}{_span(str(stage.least_cells), str(stage.most_cells))} cells, "
            f"{_span(amount(stage.least_tokens), amount(stage.most_tokens))} tokens, "
            f"{_span(duration(stage.least_s), duration(stage.most_s))}"
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
