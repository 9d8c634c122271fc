"""`mechbench list`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import click

from mechbench.catalogue.plugins import load_plugins
from mechbench.catalogue.registry import CATALOGUES, MEASURES, Entry
from mechbench.catalogue.terminal import wrapped
from mechbench.cli.arguments import PLUGIN


@click.command("list")
@click.argument("kind", type=click.Choice(["operators", "tasks", "filters", "suites"]))
@PLUGIN
def command(kind: str, plugins: tuple[str, ...]) -> None:
    """Print every available operator, task, filter or suite.

    Tasks are printed by what they measure. What comes from a plugin or another package stands with
    its origin. Filters are those of the operator hyena: --option filter=NAME. `mechbench show NAME`
    says more of one.
    """
    load_plugins(plugins)
    if kind == "suites":
        from mechbench.plan.suite_file import read_suite
        from mechbench.plan.suite_names import shipped_suites

        _print((name, read_suite(path).title) for name, path in shipped_suites().items())
        return
    registry = CATALOGUES[kind.removesuffix("s")]
    entries = sorted(map(registry.entry, registry.names()), key=_place)
    if kind != "tasks":
        _print(map(_row, entries))
        return
    width = max(len(entry.name) for entry in entries)
    for i, (what, group) in enumerate(itertools.groupby(entries, lambda entry: entry.measures)):
        click.echo(("\n" if i else "") + (what or "of plugins that do not say what"))
        _print(map(_row, group), "  ", width)


def _place(entry: Entry) -> tuple[int, str, str]:
    """Order by what a task measures, as built-in ones do first, and by name."""
    what = entry.measures
    return MEASURES.index(what) if what in MEASURES else len(MEASURES), what, entry.name


def _row(entry: Entry) -> tuple[str, str]:
    origin = "" if entry.origin == "built-in" else f" ({entry.origin})"
    return entry.name, f"{entry.summary or '-'}{origin}"


def _print(rows: Iterable[tuple[str, str]], indent: str = "", width: int = 0) -> None:
    known = list(rows)
    width = max(width, *(len(name) for name, _ in known))
    for name, text in known:
        head = f"{indent}{name.ljust(width)}  "
        click.echo("\n".join(wrapped(text, " " * len(head), head)))
