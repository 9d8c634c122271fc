"""`mechbench leaderboard`."""

from __future__ import annotations

from pathlib import Path

import click

_PATH = click.Path(path_type=Path)


@click.group("leaderboard")
def command() -> None:
    """Build leaderboards from stored results, and add results to them."""


@command.command("build")
@click.argument("root", type=_PATH, default="leaderboards")
def build(root: Path) -> None:
    """Make tables and plots of every leaderboard in ROOT from its results.csv.

    Nothing is trained, and the same results give the same bytes. With the extra mechbench[html]
    also ROOT/index.html, one page that needs no network.  [default: leaderboards]
    """
    from mechbench.leaderboard.board import find_boards, read_board
    from mechbench.leaderboard.build import build_board
    from mechbench.leaderboard.page import missing_packages, write_page

    boards = [read_board(folder) for folder in find_boards(root)]
    for board in boards:
        for path in build_board(board):
            click.echo(path)
    missing = missing_packages()
    if missing:
        click.echo(
            f"mechbench: warning: no index.html without {' and '.join(missing)}: "
            "pip install 'mechbench[html]'",
            err=True,
        )
    else:
        click.echo(write_page(boards, root / "index.html"))


@command.command("submit")
@click.argument("results", nargs=-1, required=True, type=_PATH)
@click.option("--suite", help="The suite, by name or path; stored beside the results.")
@click.option(
    "--to", type=_PATH, help="Folder of the leaderboard.  [default: leaderboards/NAME of --suite]"
)
@click.option("--without-refused", is_flag=True, help="Add the others where some are refused.")
def submit(
    results: tuple[Path, ...], suite: str | None, to: Path | None, without_refused: bool
) -> None:
    """Check RESULTS (files or folders) and add them to a leaderboard.

    Refused, and then nothing is added: what does not fit the schema, lacks its provenance, has
    figures that do not follow from its counts, or is better than the oracle or worse than chance
    by more than its interval. Results of no point of the suite are left out.
    """
    if suite is None and to is None:
        raise click.UsageError("name the leaderboard: --suite NAME or --to FOLDER")
    from mechbench.leaderboard.submit import submit as add
    from mechbench.suite_names import find_suite

    path = find_suite(suite) if suite is not None else None
    folder = to or Path("leaderboards") / (path.stem if path else "")
    done = add(results, folder, path, without_refused=without_refused)
    for line in done.refused:
        click.echo(f"mechbench: refused: {line}", err=True)
    if done.refused and not without_refused:
        raise SystemExit(2)
    click.echo(
        f"{folder}: {done.added} results added, {done.known} known already, {done.elsewhere} of "
        f"other suites left out, {done.not_run} planned cells not run"
    )
