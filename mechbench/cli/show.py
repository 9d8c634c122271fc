"""`mechbench show`."""

from __future__ import annotations

import click

from mechbench.catalogue.options import parse_pairs
from mechbench.catalogue.plugins import load_plugins
from mechbench.cli.arguments import PLUGIN, TASK_OPTION, Setting


@click.command("show")
@click.argument("task")
@click.option(
    "--seqlen", type=Setting("seqlen"), help="Sequence length in tokens.  [default: the task's]"
)
@click.option(
    "--vocab-size", type=Setting("vocab_size"), help="Vocabulary size.  [default: the task's]"
)
@TASK_OPTION
@click.option(
    "--seed", type=Setting("seed"), default=0, show_default=True, help="Seed of the examples."
)
@click.option(
    "--examples",
    type=Setting("examples"),
    help="Number of examples to measure the baselines on.  [default: 2048, fewer for long ones]",
)
@PLUGIN
def command(
    task: str,
    seqlen: int | None,
    vocab_size: int | None,
    task_options: tuple[str, ...],
    seed: int,
    examples: int | None,
    plugins: tuple[str, ...],
) -> None:
    """Draw one example of TASK, and measure what simple rules score without solving it."""
    parameters = parse_pairs(task_options, "--task-option")
    load_plugins(plugins)
    from mechbench.tasks.base import make_task, task_parameters

    made = make_task(task, vocab_size=vocab_size, seqlen=seqlen, **task_parameters(parameters))
    from mechbench.data.portrait import portrait

    click.echo(portrait(task, made, seed, examples))
