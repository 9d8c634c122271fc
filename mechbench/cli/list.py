"""`mechbench list`."""

from __future__ import annotations

import click

from mechbench.registry import OPERATORS, TASKS, load_plugins


@click.command("list")
@click.argument("kind", type=click.Choice(["operators", "tasks"]))
@click.option("--plugin", "plugins", multiple=True, metavar="FILE.py", help="Load this file too.")
def command(kind: str, plugins: tuple[str, ...]) -> None:
    """Print every operator or task with its description, source and origin."""
    load_plugins(plugins)
    registry = OPERATORS if kind == "operators" else TASKS
    rows = [("NAME", "WHAT IT IS", "SOURCE", "FROM")]
    for name in registry.names():
        entry = registry.entry(name)
        rows.append((name, entry.summary or "-", entry.source or "-", entry.origin))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=False)]
        click.echo("  ".join([*cells, row[3]]).rstrip())
