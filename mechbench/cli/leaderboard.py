"""`mechbench leaderboard`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mechbench.errors import ConfigError, MechbenchError

_PATH = click.Path(path_type=Path)


@click.group("leaderboard", invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Add results to leaderboards, build them, and train samples of their cells again."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@command.command("build")
@click.argument("root", type=_PATH, default="leaderboards")
def build(root: Path) -> None:
    """Make the tables and plots of every leaderboard in ROOT.

    They are made from each leaderboard's results.csv: nothing is trained, and the same results give
    the same bytes; of several also ROOT/atlas, which is all of them in one. With the extra
    mechbench[html] also ROOT/index.html, one page that needs no network.  [default: leaderboards]
    """
    from mechbench.leaderboard.atlas import atlas
    from mechbench.leaderboard.atlas_plot import write_atlas
    from mechbench.leaderboard.board import find_boards, read_board
    from mechbench.leaderboard.build import build_board
    from mechbench.leaderboard.page import missing_packages, write_page

    boards, failed = [], 0
    for folder in find_boards(root):
        try:  # one damaged leaderboard does not keep the others from being built
            board = read_board(folder)
            for path in build_board(board):
                click.echo(path)
            boards.append(board)
        except MechbenchError as error:
            failed += 1
            click.echo(f"mechbench: {folder} is not built: {error}", err=True)
    if (whole := atlas([board.sections for board in boards])) is not None:
        for path in write_atlas(whole, root / "atlas"):
            click.echo(path)
    missing = missing_packages()
    if missing:
        click.echo(
            f"mechbench: warning: no index.html without {' and '.join(missing)}: "
            "pip install 'mechbench[html]'",
            err=True,
        )
    elif boards:
        click.echo("\n".join(map(str, write_page(boards, root / "index.html"))))
    if failed:
        raise SystemExit(2)


@command.command("submit")
@click.argument("results", nargs=-1, required=True, type=_PATH)
@click.option("--suite", help="The suite, by name or path; stored beside the results.")
@click.option(
    "--to", type=_PATH, help="Folder of the leaderboard.  [default: leaderboards/NAME of --suite]"
)
@click.option(
    "--planned",
    is_flag=True,
    help="Take only operators that the suite plans, from runs of several suites.",
)
@click.option(
    "--without-refused", is_flag=True, help="If some results are refused, add the others."
)
def submit(
    results: tuple[Path, ...],
    suite: str | None,
    to: Path | None,
    planned: bool,
    without_refused: bool,
) -> None:
    """Check RESULTS (files or folders) and add them to a leaderboard.

    A result is refused if it does not fit the schema, if it contradicts itself, or if computing the
    task's examples and baselines and the model's size again refutes it; a low accuracy is no
    reason. If one is refused, none is added. Results of no cell of the suite are left out, but
    any operator may stand beside those that it plans.
    """
    if suite is None and to is None:
        raise click.UsageError("name the leaderboard: --suite NAME or --to FOLDER")
    from mechbench.leaderboard.submit import submit as add
    from mechbench.plan.suite_names import find_suite
    from mechbench.report.escape import plain

    path = find_suite(suite) if suite is not None else None
    folder = to or Path("leaderboards") / (path.stem if path else "")
    done = add(
        results, folder, path, planned=planned, without_refused=without_refused,
        say=lambda text: click.echo(f"mechbench: {text}", err=True),
    )  # fmt: skip
    for line in done.refused:
        click.echo(f"mechbench: refused: {plain(line)}", err=True)
    if done.refused and not without_refused:
        raise SystemExit(2)
    click.echo(
        f"{folder}: {done.added} results added, {done.known} already known, {done.elsewhere} of "
        f"other suites left out; {done.not_run} planned cells are not run yet"
    )
    click.echo(
        "that the accuracies were measured as stated is taken on trust; "
        f"mechbench leaderboard verify {folder} trains a sample again"
    )


@command.command("verify")
@click.argument("folder", type=_PATH)
@click.option(
    "--sample",
    type=click.IntRange(1, 10_000),
    default=3,
    help="How many cells to train.  [default: 3]",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, help="Seed of the choice of cells.  [default: 0]"
)
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.  [default: auto]")
@click.option(
    "--plugin",
    "plugins",
    multiple=True,
    type=_PATH,
    help="Python file that registers operators or tasks (repeatable).",
)
@click.option(
    "--out", type=_PATH, default="runs-verify", help="Folder for the runs.  [default: runs-verify]"
)
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
def verify(
    folder: Path, sample: int, seed: int, device: str, plugins: tuple[Path, ...], out: Path,
    as_json: bool,
) -> None:  # fmt: skip
    """Train a random sample of the cells in FOLDER again, and compare.

    On a CPU, with the same versions and number of threads, every count must be the same. Elsewhere
    rounding differs: there the accuracies must agree within the 95% interval of their difference,
    and either both runs or neither must be solved. The exit code is 1 if a cell differs, and 2 if
    none could be checked. The same command continues after an interruption.
    """
    from mechbench.leaderboard.verify import OUTCOMES
    from mechbench.leaderboard.verify import verify as check

    found = []
    for one in check(
        folder, sample=sample, seed=seed, device=device, plugins=[*map(str, plugins)], out=out
    ):
        found.append(one)
        if not as_json:
            click.echo(one.line)
    counts = {name: sum(c.outcome == name for c in found) for name in OUTCOMES}
    if as_json:
        click.echo(json.dumps({"cells": [c.to_dict() for c in found], "counts": counts}, indent=1))
    else:
        click.echo(f"{folder}: " + ", ".join(f"{n} {name}" for name, n in counts.items()))
    if counts["differs"]:
        raise SystemExit(1)
    if counts["not checked"] == len(found):
        raise ConfigError(f"no cell of {folder} could be checked here")
