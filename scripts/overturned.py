"""How often is a cell called flat that ten times the tokens would solve?

    python scripts/overturned.py SHORT LONG

SHORT holds results at a budget, LONG the same cells at ten times it. Every cell of SHORT that was
not solved is judged again from its metrics.csv, by the rule of `mechbench.record.trend` and by a
grid of the rule's constants, and the share of the flat ones that LONG solved is printed with its
Wilson interval; beside it that of the cells called rising, and of those not judged. With
--at TOKENS only what SHORT had seen by then counts, so that one folder of long runs may stand for
both, if their schedule does not depend on the budget.

A cell counts as followed if LONG solved it, diverged, or went on to --times the tokens; others are
counted and left out. The default rule is right where at most --most of its flat cells are
overturned, and then the script exits with 0, else with 1.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click

from mechbench.errors import MechbenchError, ResultError
from mechbench.record.config import Config
from mechbench.record.outcome import CENSORED, DIVERGED, SOLVED, UNCLEAR, cell_outcome, outcome_of
from mechbench.record.results import find_results, read_result, wilson_interval
from mechbench.record.trend import FLAT, RISING, RULE, Rule
from mechbench.report.rows import age, identity
from mechbench.report.table import markdown_table
from mechbench.report.watch import read_metrics

GRID: dict[str, Sequence[float]] = {
    "part": (0.5, 0.75),
    "sigmas": (1.0, 1.96, 3.0),
    "times": (2.0, 10.0, 100.0),
    "gain": (0.01, 0.03, math.inf),  # the last: the scored positions alone
    "least_tokens": (0.0, 1e7, 5e7),
}
_NEARLY = 0.95  # of the tokens asked for: a budget ends up to a step early


@dataclass(frozen=True)
class Pair:
    """A cell that was not solved, and whether it became so.

    Attributes:
        rows: of its metrics, as `cell_outcome` takes them.
        positions: scored in a validation.
        mark: that counts as solved.
        solved: whether the long run solved it.
    """

    rows: list[dict[str, Any]]
    positions: int
    mark: float
    solved: bool

    def verdict(self, rule: Rule) -> str:
        """Return what the rule calls it."""
        return cell_outcome(self.rows, self.positions, self.mark, rule).trend or UNCLEAR


def newest(folder: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Return the newest result of each cell below a folder, whatever its budget."""
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    for path in find_results(folder):
        data = read_result(path).data
        config = Config.from_dict(data["config"])
        key = f"{config.seed} {identity(config, without=('budget_tokens',))}"
        if key not in found or age(data) > age(found[key][1]):
            found[key] = path, data
    return found


def pairs(short: Path, long: Path, times: float, at: int) -> tuple[list[Pair], dict[str, int]]:
    """Return the cells to judge, and how many were left out, by reason."""
    left: dict[str, int] = dict.fromkeys(
        ("solved at first", "failed at first", "without metrics", "not in LONG", "not followed"), 0
    )
    after, found = newest(long), []
    for key, (path, data) in newest(short).items():
        pair = judged(path, data, after.get(key, (path, None))[1], times, at)
        if isinstance(pair, Pair):
            found.append(pair)
        else:
            left[pair] += 1
    return found, left


def judged(
    path: Path, data: Mapping[str, Any], later: Mapping[str, Any] | None, times: float, at: int
) -> Pair | str:
    """Return a cell that can be judged, or why it cannot."""
    told = outcome_of(data)
    if told is None or (told.kind not in (SOLVED, CENSORED)):
        return "failed at first"
    try:
        logged = read_metrics(path.with_name("metrics.csv"))
    except (ResultError, OSError):
        return "without metrics"
    rows = [dataclasses.asdict(row) for row in logged if not at or row.tokens <= at]
    positions = told.positions or int(data["config"]["n_validation"])
    first = cell_outcome(rows, positions, told.mark)
    if first.kind == SOLVED:
        return "solved at first"
    if later is None:
        return "not in LONG"
    end = outcome_of(later)
    enough = _NEARLY * times * first.tokens
    if end is None or not (
        end.kind in (SOLVED, DIVERGED) or (end.kind == CENSORED and end.tokens >= enough)
    ):
        return "not followed"
    return Pair(rows, positions, told.mark, end.kind == SOLVED)


def rules() -> Iterator[Rule]:
    """Yield the rule in force, then those of the grid."""
    yield RULE
    for values in itertools.product(*GRID.values()):
        rule = dataclasses.replace(RULE, **dict(zip(GRID, values, strict=True)))
        if rule != RULE:
            yield rule


def shares(found: Sequence[Pair], rule: Rule) -> dict[str, tuple[int, int]]:
    """Return (solved later, cells) by what the rule calls them."""
    named = [(pair.verdict(rule), pair.solved) for pair in found]
    return {
        word: (sum(solved for w, solved in named if w == word), sum(w == word for w, _ in named))
        for word in (FLAT, RISING, UNCLEAR)
    }


def shown(solved: int, cells: int) -> str:
    """Return a share in percent with its interval."""
    if not cells:
        return "0 of 0"
    low, high = wilson_interval(solved, cells)
    return f"{solved} of {cells}: {100 * solved / cells:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


@click.command()
@click.argument("short", type=click.Path(path_type=Path))
@click.argument("long", type=click.Path(path_type=Path))
@click.option("--at", type=int, default=0, help="Tokens at which SHORT is read; 0: at its end.")
@click.option("--times", type=float, default=10.0, show_default=True)
@click.option("--most", type=float, default=0.05, show_default=True, help="Share that may err.")
@click.option("--json", "out", type=click.Path(path_type=Path), help="File for all of it.")
def command(short: Path, long: Path, at: int, times: float, most: float, out: Path | None) -> None:
    """Tell how many flat cells of SHORT are solved in LONG."""
    try:
        found, left = pairs(short, long, times, at)
    except MechbenchError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{len(found)} cells judged; left out: {json.dumps(left)}\n")
    lines = [[*GRID, "flat, then solved", "rising, then solved", "unclear, then solved"]]
    told = []
    for rule in rules():
        counts = shares(found, rule)
        told.append({"rule": dataclasses.asdict(rule), **counts})
        values = [f"{getattr(rule, name):g}" for name in GRID]
        lines.append([*values, *(shown(*counts[word]) for word in counts)])
    click.echo(markdown_table(lines))
    if out:
        out.write_text(json.dumps({"left_out": left, "rules": told}, indent=1) + "\n")
    solved = sum(pair.solved for pair in found)
    click.echo(f"\nNot solved at first, and then solved: {shown(solved, len(found))} percent")
    solved, flat = told[0][FLAT]
    verdict = "none is flat" if not flat else f"flat and then solved: {shown(solved, flat)} percent"
    click.echo(f"The rule in force, {dataclasses.asdict(RULE)}: {verdict}")
    sys.exit(int(bool(flat) and solved / flat > most))


if __name__ == "__main__":
    command()
