"""Would more tokens have solved it? Draw unsolved cells, and give them ten times as many.

    mechbench sweep tasks/recall-vs-length.toml --out RUNS
    python scripts/carry_on.py RUNS LONG --suite recall-vs-length --number 30
    python scripts/overturned.py RUNS LONG

Cells are drawn at random from the reported ones of the suites that RUNS holds. Their folders are
copied to LONG and go on there from their checkpoints; RUNS stays as it is. The same command
continues.
"""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click

from mechbench.errors import MechbenchError
from mechbench.plan.suite import Cell
from mechbench.plan.suite_file import read_suite
from mechbench.plan.suite_names import find_suite
from mechbench.record.outcome import CENSORED, outcome_of
from mechbench.sweep.execute import Outlook, run_sweep, worker_devices
from mechbench.sweep.plan import Schedule, make_plan, stored_results
from mechbench.sweep.readings import up_to
from mechbench.sweep.sharing import cells_a_gpu


def not_solved(cells: Sequence[Cell], runs: Path) -> dict[str, Cell]:
    """Return the reported cells that ended at the budget, by id."""
    reported = {cell.cell_id: cell for cell in cells if not cell.config.tunes}
    told = {i: outcome_of(data) for i, data in stored_results([*reported.values()], runs).items()}
    return {i: reported[i] for i, outcome in told.items() if outcome and outcome.kind == CENSORED}


@click.command()
@click.argument("runs", type=click.Path(path_type=Path, exists=True))
@click.argument("long", type=click.Path(path_type=Path))
@click.option("--suite", "suites", multiple=True, required=True, help="Name or file; repeatable.")
@click.option("--number", type=click.IntRange(1), default=30, show_default=True)
@click.option("--times", type=click.FloatRange(1), default=10.0, show_default=True)
@click.option("--seed", type=int, default=7, show_default=True, help="Of the draw.")
@click.option("--device", default="auto", show_default=True)
def command(
    runs: Path, long: Path, suites: Sequence[str], number: int, times: float, seed: int, device: str
) -> None:
    """Draw NUMBER not-solved cells of RUNS and train them on in LONG."""
    try:
        read = [read_suite(find_suite(name)) for name in suites]
        found: dict[str, Cell] = {}
        for suite in read:
            found |= not_solved(suite.cells(device), runs)
        drawn = random.Random(seed).sample(sorted(found), min(number, len(found)))
        click.echo(f"{len(drawn)} of {len(found)} cells that were not solved")
        for cell_id in drawn:
            if not (long / cell_id).exists():
                shutil.copytree(runs / cell_id, long / cell_id)
        more = [up_to(found[i], round(times * found[i].config.budget_tokens)) for i in drawn]
        stored = stored_results(more, long)
        # Those first that have most to do: every operator's cost a token is near enough the same.
        schedule = Schedule(more, stored, lambda cell: float(cell.config.budget_tokens))
        outlook = Outlook(more, make_plan(more, stored), schedule, {})
        shared = cells_a_gpu(outlook.left, len(worker_devices(device, None, 1)))
        run_sweep(outlook, read[0], long, worker_devices(device, None, shared), checkpoint_s=30.0)
    except MechbenchError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    command()
