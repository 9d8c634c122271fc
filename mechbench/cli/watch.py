"""`mechbench watch`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from mechbench.cli.arguments import Setting


@click.command("watch")
@click.argument("root", type=click.Path(path_type=Path), default="runs")
@click.option(
    "--every", "every_s", type=Setting("every_s"), default=2.0, show_default=True,
    help="Seconds between updates.",
)  # fmt: skip
@click.option("--last", type=Setting("last"), default=20, show_default=True,
              help="Most runs to show, the latest changed first.")  # fmt: skip
@click.option("--once", is_flag=True, help="Show the runs once and exit.")
def command(root: Path, every_s: float, last: int, once: bool) -> None:
    """Show live curves of the runs below ROOT, until Ctrl-C.

    A run's curve grows each time it writes a checkpoint (`--checkpoint-every`).  [default: runs]
    """
    from mechbench.report.watch import picture, read_runs

    while True:
        runs, warnings = read_runs(root)
        if not once:
            click.clear()
        click.echo(picture(runs[:last]))
        for warning in warnings[:last]:
            click.echo(f"mechbench: warning: {warning}", err=True)
        if len(warnings) > last:
            click.echo(f"mechbench: warning: and {len(warnings) - last} more", err=True)
        if once:
            return
        time.sleep(every_s)
