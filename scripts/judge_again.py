"""Judge stored cells again, rising or flat, where the rule has changed since.

    python scripts/judge_again.py RUNS
    mechbench leaderboard submit RUNS --suite recall-vs-length

Of every result below RUNS that was not solved, the slopes and the trend are computed anew from the
metrics.csv beside it, by the rule of `mechbench.record.trend`; nothing else of it changes.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click

from mechbench.errors import MechbenchError
from mechbench.record.outcome import CENSORED, cell_outcome, outcome_of
from mechbench.record.results import find_results, read_result, write_json
from mechbench.report.watch import read_metrics


def judged(path: Path) -> str | None:
    """Judge a result anew, and return what changed; None if nothing did."""
    data = read_result(path).data
    told = outcome_of(data)
    if told is None or told.kind != CENSORED or told.positions is None:
        return None
    rows = [dataclasses.asdict(row) for row in read_metrics(path.with_name("metrics.csv"))]
    end = told.tokens, told.accuracy
    anew = cell_outcome(rows, told.positions, told.mark, end=end)
    if anew == told:
        return None
    if anew.kind != CENSORED:
        raise click.ClickException(f"{path}: its metrics.csv is {anew.kind}, and it is {told.kind}")
    data["outcome"] = anew.to_dict()
    write_json(path, data)
    return f"{told.trend} at first, {anew.trend} now"


@click.command()
@click.argument("runs", type=click.Path(path_type=Path, exists=True))
def command(runs: Path) -> None:
    """Judge the results below RUNS again."""
    try:
        for path in find_results(runs):
            if told := judged(path):
                click.echo(f"{path.parent.name}: {told}")
    except (MechbenchError, OSError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    command()
