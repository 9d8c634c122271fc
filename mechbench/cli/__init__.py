"""The command line: click only, one file a subcommand, imported when it is called."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from mechbench import __version__
from mechbench.errors import MechbenchError

# Name to one-line help; the file mechbench/cli/NAME.py holds the command.
COMMANDS = {
    "run": "Train one operator on one task, score it and store the result.",
    "sweep": "Run every cell of a suite, and continue where it stopped.",
    "watch": "Show live curves of runs in the terminal.",
    "leaderboard": "Build leaderboards from stored results, and add results to them.",
    "report": "Turn stored results into a table and a plot.",
    "list": "List operators or tasks with their sources.",
    "show": "Draw one example of a task, its chance level and baselines.",
    "check": "Say whether an operator is sound, and which properties of attention it has.",
    "bench": "Measure time and memory of operators against the sequence length.",
    "inspect": "Draw the matrix H(u), the filters and the reach of an operator, fresh or trained.",
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"mechbench.cli.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

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
    """Run the command line; errors of use become one line and exit code 2."""
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
        # Not sys.exit: where Ctrl-C broke into an exec, as imports do, Python would end itself by
        # SIGINT instead.
        os._exit(128 + number)


def _fail(message: str) -> None:
    from mechbench.report.escape import plain

    # One line of some length, whatever a file or an argument that it quotes holds.
    click.echo(f"mechbench: error: {plain(message, 2000)}", err=True)
    sys.exit(2)
