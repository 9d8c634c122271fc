"""How far the choice of a point's learning rate is, and which cells it needs. No torch.

The first of the seeds that are not reported scouts: every rate runs with it, by successive halving
over the budget. A rate that is fast once may still fail with the next seed, so where several solve
the task in about as many tokens, they run with the other seeds too, and the share solved decides.
The rule is the same for every operator; how many trials it came to stands in the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mechbench.plan.curriculum import least_budget
from mechbench.plan.resolve import task_of
from mechbench.plan.suite import Cell
from mechbench.report.tuning import Rates, Reading, solved, tuned_lr
from mechbench.sweep.halving import Halving, halve, rungs
from mechbench.sweep.readings import counts, read_at, up_to

Results = Mapping[str, Mapping[str, Any]]

NEAR = 4.0  # times the tokens of the fastest rate, within which another may be the better one
FINALISTS = 3  # rates that the other seeds decide between, at most


@dataclass(frozen=True)
class Choice:
    """How far the choice of a rate is.

    Attributes:
        needed: the cells it needs, at the budgets that are wanted of them for now.
        open: those of them that may have to go on to the whole budget.
        lr: the chosen rate; None while a cell is missing.
    """

    needed: list[Cell]
    open: list[Cell]
    lr: float | None


def choose(tuning: Sequence[Cell], results: Results, by_rows: bool = True) -> Choice:
    """Return how far the choice is.

    Args:
        tuning: the cells of a point that choose its rate, those of the scouting seed first.
        results: by cell id, as `mechbench.sweep.plan.make_plan` takes them.
        by_rows: see there.
    """
    scouts, others = parted(tuning)
    near = NEAR if others else 1.0
    state = _halving(scouts, results, near) if by_rows else _ended(scouts, results)
    needed = [up_to(cell, state.wanted[cell.config.lr]) for cell in scouts]
    if state.chosen is None:
        going = [c for c in scouts if c.config.lr in state.going and not counts(c, results)]
        return Choice(needed, going, None)
    rates = finalists(
        {
            cell.config.lr: [found]
            for cell in scouts
            if (found := read_at(results[cell.cell_id], cell.config.budget_tokens)) is not None
        }
    )
    finals = [cell for cell in others if cell.config.lr in rates]
    if not finals:
        return Choice(needed, [], state.chosen)
    needed += finals
    if not all(counts(cell, results) for cell in finals):
        return Choice(needed, [], None)
    ran = [cell for cell in (*scouts, *finals) if cell.config.lr in rates]
    return Choice(needed, [], tuned_lr(results[cell.cell_id] for cell in ran))


def parted(tuning: Sequence[Cell]) -> tuple[list[Cell], list[Cell]]:
    """Return the cells of the seed that scouts, and those of the others."""
    first = tuning[0].config.seed
    scouts = [cell for cell in tuning if cell.config.seed == first]
    return scouts, [cell for cell in tuning if cell.config.seed != first]


def finalists(rates: Rates) -> tuple[float, ...]:
    """Return the rates between which other seeds decide, the fastest first; none of fewer than two.

    Args:
        rates: as the scouting seed left them.
    """
    known = {lr: found[0].tokens for lr, found in rates.items() if solved(found)}
    order = sorted(known, key=lambda lr: (known[lr], lr))
    near = [lr for lr in order if known[lr] <= NEAR * known[order[0]]][:FINALISTS]
    return tuple(near) if len(near) > 1 else ()


def _halving(scouts: Sequence[Cell], results: Results, near: float) -> Halving:
    """Return how far the search with one seed is."""
    by_lr = {cell.config.lr: cell for cell in scouts}

    def read(lr: float, budget: int) -> list[Reading] | None:
        last = budget == budgets[-1]
        found = read_at(results.get(by_lr[lr].cell_id), budget, at_end=last)
        return None if found is None else [found]

    budgets = rungs_of(scouts)
    return halve(list(by_lr), budgets, read, near)


def _ended(scouts: Sequence[Cell], results: Results) -> Halving:
    """Return the end of a search of which only the results are known, or that it has none."""
    most = scouts[0].config.budget_tokens
    stored = [results[cell.cell_id] for cell in scouts if cell.cell_id in results]
    rates = frozenset(cell.config.lr for cell in scouts)
    if len(stored) < len(scouts):
        return Halving(dict.fromkeys(rates, most), rates)
    wanted = dict.fromkeys(rates, most)
    for data in stored:
        config = data["config"]
        wanted[config["lr"]] = min(wanted[config["lr"]], config["budget_tokens"])
    return Halving(wanted, rates, tuned_lr(stored, most))


def rungs_of(tuning: Sequence[Cell]) -> tuple[int, ...]:
    """Return the budgets at which the rates of a point are compared.

    Args:
        tuning: the cells that choose its rate.
    """
    config = tuning[0].config
    least = 0
    if config.curriculum:  # before it can be at full length a run is not validated
        least = least_budget(task_of(config), config.curriculum, config.validate_every)
    return rungs(len({cell.config.lr for cell in tuning}), config.budget_tokens, least)
