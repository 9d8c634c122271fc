"""`mechbench compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mechbench.catalogue.options import parse_pairs
from mechbench.catalogue.plugins import load_plugins
from mechbench.catalogue.registry import OPERATORS
from mechbench.cli.arguments import OPERATOR_OPTION, Setting
from mechbench.cli.interrupted import end_if_interrupted
from mechbench.errors import ConfigError, PluginError
from mechbench.plan.battery import for_operators, of_tasks
from mechbench.plan.suite_file import read_suite
from mechbench.plan.suite_names import find_suite
from mechbench.processors import processors
from mechbench.record.files import make_folder
from mechbench.sweep.process import template

if TYPE_CHECKING:
    from mechbench.plan.suite import Cell, Suite
    from mechbench.sweep.process import Template


@click.command("compare")
@click.argument("targets", nargs=-1)
@click.option("--operator", "operators", multiple=True, help="Operator by name (repeatable).")
@OPERATOR_OPTION
@click.option("--quick", is_flag=True, help="The part that two CPU cores do in 20 minutes.")
@click.option("--tasks", help="Some of the tasks alone: names, with commas between.")
@click.option("--suite", help="Another suite than `card`: a name, or the path of a .toml file.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="runs",
    show_default=True,
    help="Folder for results; what is in it already is not run again.",
)
@click.option(
    "--card",
    type=click.Path(path_type=Path),
    default="card",
    show_default=True,
    help="Folder for the scorecard.",
)
@click.option("--dry-run", is_flag=True, help="Show what would run and what it would cost.")
@click.option(
    "--jobs-per-device",
    type=Setting("jobs_per_device"),
    help="Number of cells at once on each GPU, or on the CPU.  [default: up to 4 small ones on a "
    "GPU, one a processor on the CPU]",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--quiet", is_flag=True, help="Print nothing but warnings and errors.")
def command(
    targets: tuple[str, ...],
    operators: tuple[str, ...],
    options: tuple[str, ...],
    quick: bool,
    tasks: str | None,
    suite: str | None,
    out: Path,
    card: Path,
    dry_run: bool,
    jobs_per_device: int | None,
    device: str,
    quiet: bool,
) -> None:
    """Check, train and score operators on a standard battery, beside the known operators.

    TARGETS are plugin files, whose operators are all taken, or names of operators.

    The same command continues where it was stopped. The scorecard is written as card.md, card.tex,
    card.json, card.html, card.png, card.svg and card.pdf. The exit code is 1 if no operator is
    sound, or a cell failed.
    """
    files = [target for target in targets if target.endswith(".py")]
    names = [*operators, *(target for target in targets if target not in files)]
    names = list(dict.fromkeys([*_registered(files), *names]))
    if not names:
        raise click.UsageError("expected a plugin file or the name of an operator")
    for name in names:
        OPERATORS.entry(name)
    battery = read_suite(find_suite(suite or ("card-quick" if quick else "card")))
    if tasks:
        battery = of_tasks(battery, [name.strip() for name in tasks.split(",")])
    if not dry_run:
        make_folder(card)  # now, not after minutes of training
    with template() as ready:  # before this process imports torch
        given = parse_pairs(options)
        unsound = {} if dry_run else _unsound(names, given, quiet)
        sound = [name for name in names if name not in unsound]
        mine = for_operators(battery, sound, given, files)
        cells, failed = (
            _train(mine, out, ready, dry_run, jobs_per_device, device, quiet) if sound else ((), 0)
        )
    if not dry_run:
        _write(cells, battery, out, card, unsound, quiet)
    if failed or not sound:
        raise SystemExit(1)


def _registered(files: list[str]) -> list[str]:
    """Load plugin files and return the operators that they register.

    Raises:
        PluginError: a file registers none.
    """
    load_plugins(files)
    entries = [OPERATORS.entry(name) for name in OPERATORS.names()]
    found = []
    for file in files:
        own = [
            e.name for e in entries if e.digest and Path(e.origin).resolve() == Path(file).resolve()
        ]
        if not own:
            raise PluginError(
                f"plugin {file} registers no operator: decorate a class with "
                "@mechbench.register_operator('name')"
            )
        found += own
    return found


def _unsound(names: list[str], given: dict[str, str], quiet: bool) -> dict[str, str]:
    """Return the operators that the check refuses, each with its first failure."""
    from mechbench.checks.sound import soundness
    from mechbench.checks.subject import Subject
    from mechbench.operators.base import operator_options

    refused = {}
    for name in names:
        subject = Subject(name, operator_options(name, given), d_model=64, seqlen=128, device="cpu")
        failed = [f"{x.name}: {x.text}" for x in soundness(subject) if x.verdict == "FAIL"]
        if failed:
            refused[name] = failed[0]
            click.echo(f"mechbench: warning: {name} is not sound: {failed[0]}", err=True)
        elif not quiet:
            click.echo(f"{name}: a sound operator")
    return refused


def _train(
    suite: Suite, out: Path, ready: Template | None, dry_run: bool, shared: int | None,
    device: str, quiet: bool,
) -> tuple[Sequence[Cell], int]:  # fmt: skip
    """Run what is left of a suite; return its cells, and how many failed."""
    from mechbench.sweep.execute import look, run_sweep, worker_devices
    from mechbench.sweep.sharing import cells_a_gpu

    outlook = look(suite, out, device=device)
    one_each = worker_devices(device, None, 1)
    # Small models do not fill several processors: on a CPU each has a worker of its own.
    each = processors() if one_each == ["cpu"] else cells_a_gpu(outlook.left, len(one_each))
    devices = worker_devices(device, None, shared or each)
    if not quiet or dry_run:
        click.echo(outlook.text(suite.name, len(devices)))
    if dry_run:
        return outlook.cells, 0
    plan, signal_number = run_sweep(
        outlook, suite, out, devices, checkpoint_s=30.0, quiet=quiet, template=ready
    )
    end_if_interrupted(plan, signal_number)
    return outlook.cells, len(plan.failed)


def _write(
    cells: Sequence[Cell], battery: Suite, out: Path, folder: Path, unsound: dict[str, str],
    quiet: bool,
) -> None:  # fmt: skip
    from mechbench.leaderboard.shipped import shipped_boards
    from mechbench.report.rows import rows_of
    from mechbench.scorecard.card import make_card
    from mechbench.scorecard.files import write_card
    from mechbench.scorecard.known import known_rows
    from mechbench.scorecard.text import to_markdown
    from mechbench.sweep.plan import stored_results

    own = [row for data in stored_results(cells, out).values() for row in rows_of(dict(data))]
    try:
        known = known_rows(battery, shipped_boards())
    except ConfigError as error:  # a suite of one's own may name what only it has
        known = []
        click.echo(f"mechbench: warning: nothing to compare with: {error}", err=True)
    made = make_card(own, known, unsound)
    files = write_card(made, folder)
    if not quiet:
        click.echo("\n".join(map(str, files)))
        click.echo(f"\n{to_markdown(made)}", nl=False)
