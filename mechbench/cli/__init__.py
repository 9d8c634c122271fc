"""The command line: click only, with a file for each subcommand, imported when it is called."""

from __future__ import annotations

import atexit
import importlib
import os
import sys
import threading
from typing import Any

import click

from mechbench import __version__
from mechbench.console.signals import send_lost_interrupts_again
from mechbench.errors import MechbenchError

_WAIT_S = 1.0  # for threads that are about to end
_NOT_WRITTEN = 120  # exit code of a program whose last output got lost, as Python's own

# Name to one-line help; the file mechbench/cli/NAME.py holds the command.
COMMANDS = {
    "run": "Train one operator on one task, score it and store the result.",
    "sweep": "Run every cell of a suite, and continue where it stopped.",
    "watch": "Show live curves of runs in the terminal.",
    "leaderboard": "Add results to leaderboards, build them, and train samples again.",
    "report": "Turn stored results into a table and a plot.",
    "list": "List operators, tasks or suites, with a line about each.",
    "show": "Draw one example of a task, its chance level and baselines.",
    "compare": "Put operators of your own beside the known ones: a scorecard.",
    "check": "Say whether an operator is sound, and which properties of attention it has.",
    "bench": "Measure time and memory of operators against the sequence length.",
    "inspect": "Draw an operator's matrix H(u), its filters and the reach of its gradients.",
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS]  # not `list`, which is a module here once it is imported

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"mechbench.cli.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([*COMMANDS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from mechbench.errors import nearest

            raise MechbenchError(f"unknown command {args[0]!r}: {nearest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Lazy,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="mechbench")
@click.pass_context
def group(ctx: click.Context) -> None:
    """What can a sequence operator do, at which length, and what does it cost?

    Start with: mechbench run --operator hyena --task recall
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> None:
    """Run the command line; a user's error becomes one line and exit code 2."""
    try:
        _run()
    except SystemExit as stop:
        _leave_threads_behind(stop.code)
        raise
    _leave_threads_behind(0)


def program() -> None:
    """Be the program `mechbench`: as `main`, and end at once.

    Python would take down what it has loaded piece by piece, which lasts half a second with torch.
    """
    code: object = 0
    send_lost_interrupts_again()
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    if "torch" in sys.modules:
        _end(code)
    sys.exit(_number(code))


def _number(code: object) -> int:
    """Return what a process ends with, for what `SystemExit` holds."""
    return code if isinstance(code, int) else int(code is not None)


def _leave_threads_behind(code: object) -> None:
    """End the process here if threads that an operator or task started would keep it alive."""
    left = [t for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()]
    for thread in left:
        thread.join(_WAIT_S / len(left))
    left = [thread for thread in left if thread.is_alive()]
    if not left:
        return
    names = ", ".join(sorted(thread.name for thread in left))
    click.echo(f"mechbench: warning: threads not waited for: {names}", err=True)
    _end(code)


def _end(code: object) -> None:
    """End the process here, once what waits for its end has been done."""
    atexit._run_exitfuncs()
    number = _number(code)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # nobody reads it, or the disk is full
            number = number or _NOT_WRITTEN
    os._exit(number)


def _run() -> None:
    try:
        group.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.UsageError as error:
        _fail(error.format_message())
    except MechbenchError as error:
        _fail(str(error))
    except (KeyboardInterrupt, click.Abort) as stop:
        # Click turns what a command raises into an Abort without its text.
        cause = stop.__cause__ if isinstance(stop, click.Abort) and stop.__cause__ else stop
        number = getattr(cause, "signal_number", 2)
        click.echo(f"mechbench: {str(cause) or 'interrupted'}", err=True)
        sys.stdout.flush()
        # Not sys.exit: if Ctrl-C interrupted an exec, as in an import, Python would end itself by
        # SIGINT instead.
        os._exit(128 + number)


def _fail(message: str) -> None:
    from mechbench.report.escape import plain

    # One line of some length, whatever a file or an argument that it quotes holds.
    click.echo(f"mechbench: error: {plain(message, 2000)}", err=True)
    sys.exit(2)
