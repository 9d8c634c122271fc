"""`mechbench report`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("report")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="report",
    show_default=True,
    help="Folder for the tables and plots.",
)
def command(paths: tuple[Path, ...], out: Path) -> None:
    """Turn stored results into a table and a plot of accuracy versus length.

    PATHS are folders of results, leaderboards, or single result.json files.  [default: runs]

    With a leaderboard beside runs/, an operator of one's own stands beside those stored there.
    """
    from mechbench.report import write_report

    report = write_report(paths or (Path("runs"),), out)
    for warning in report.warnings:
        click.echo(f"mechbench: warning: {warning}", err=True)
    for path in report.files:
        click.echo(path)
    click.echo(f"\n{report.markdown}", nl=False)
