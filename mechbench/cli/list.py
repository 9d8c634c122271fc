"""`mechbench list`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from mechbench.catalogue.plugins import load_plugins
from mechbench.catalogue.registry import CATALOGUES, MEASURES, Entry
from mechbench.cli.arguments import PLUGIN


@click.command("list")
@click.argument("kind", type=click.Choice(["operators", "tasks", "filters", "suites"]))
@PLUGIN
def command(kind: str, plugins: tuple[str, ...]) -> None:
    """Print every available operator, task, filter or suite.

    Operators, tasks and filters are printed with their sources and origins, tasks by what they
    measure, suites with their titles. Filters are those of the operator hyena: --option
    filter=NAME.
    """
    load_plugins(plugins)
    if kind == "suites":
        from mechbench.plan.suite_file import read_suite
        from mechbench.plan.suite_names import shipped_suites

        suites = shipped_suites().items()
        _print([("NAME", "TITLE"), *((name, read_suite(path).title) for name, path in suites)])
        return
    registry = CATALOGUES[kind.removesuffix("s")]
    entries = sorted(map(registry.entry, registry.names()), key=_place)
    columns = {"NAME": "name", "MEASURES": "measures", "WHAT IT IS": "summary", "SOURCE": "source",
        "FROM": "origin"}  # fmt: skip
    if kind != "tasks":
        del columns["MEASURES"]
    rows = [[getattr(entry, column) or "-" for column in columns.values()] for entry in entries]
    _print([list(columns), *rows])


def _place(entry: Entry) -> tuple[int, str, str]:
    """Order by what a task measures, as built-in ones do first, and by name."""
    what = entry.measures
    return MEASURES.index(what) if what in MEASURES else len(MEASURES), what, entry.name


def _print(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = [text.ljust(width) for text, width in zip(row, widths, strict=True)]
        click.echo("  ".join(padded).rstrip())
