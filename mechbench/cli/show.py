"""`mechbench show`."""

from __future__ import annotations

import click

from mechbench.catalogue.options import parse_pairs
from mechbench.catalogue.plugins import load_plugins
from mechbench.catalogue.registry import CATALOGUES, FILTERS, OPERATORS, TASKS
from mechbench.cli.arguments import PLUGIN, TASK_OPTION, Setting
from mechbench.errors import ConfigError, nearest


@click.command("show")
@click.argument("name")
@click.option(
    "--seqlen", type=Setting("seqlen"), help="Sequence length in tokens.  [default: the task's]"
)
@click.option(
    "--vocab-size", type=Setting("vocab_size"), help="Vocabulary size.  [default: the task's]"
)
@TASK_OPTION
@click.option("--seed", type=Setting("seed"), help="Seed of the examples.  [default: 0]")
@click.option(
    "--examples",
    type=Setting("examples"),
    help="Number of examples to measure the baselines on.  [default: 2048, fewer for long ones]",
)
@PLUGIN
def command(
    name: str,
    seqlen: int | None,
    vocab_size: int | None,
    task_options: tuple[str, ...],
    seed: int | None,
    examples: int | None,
    plugins: tuple[str, ...],
) -> None:
    """Show a task, an operator or a filter.

    Of a task NAME, draw one example and measure what simple rules score without solving it. Of an
    operator or a filter, print its equation, its options and where it comes from.
    """
    parameters = parse_pairs(task_options, "--task-option")
    load_plugins(plugins)
    known = {kind: registry.names() for kind, registry in CATALOGUES.items()}
    if not any(name in names for names in known.values()):
        for registry in CATALOGUES.values():
            if any(package.needs(name) for package in registry.packages):
                registry.entry(name)  # says which package is needed
        every = {other for names in known.values() for other in names}
        raise ConfigError(f"unknown task, operator or filter {name!r}: {nearest(name, every)}")
    given = {
        "--seqlen": seqlen, "--vocab-size": vocab_size, "--task-option": task_options or None,
        "--seed": seed, "--examples": examples,
    }  # fmt: skip
    texts = []
    if name in known[TASKS.kind]:
        from mechbench.data.portrait import portrait
        from mechbench.tasks.base import make_task, task_parameters

        made = make_task(name, vocab_size=vocab_size, seqlen=seqlen, **task_parameters(parameters))
        texts.append(portrait(name, made, seed or 0, examples))
    elif flags := [flag for flag, value in given.items() if value is not None]:
        raise ConfigError(f"{flags[0]} is for tasks: {name!r} is none")
    if name in known[OPERATORS.kind]:
        texts.append(_operator(name))
    if name in known[FILTERS.kind]:
        texts.append(_filter(name))
    click.echo("\n\n".join(texts))


def _operator(name: str) -> str:
    from mechbench.catalogue.description import description
    from mechbench.operators.base import RESERVED, declared_options

    component = OPERATORS.load(name)
    groups = getattr(component, "option_groups", {})
    more = declared_options(name, {})
    text = description(OPERATORS.entry(name), component, (*RESERVED, *groups), more)
    return (
        f"{text}\n\n  mechbench run --operator {name} --task recall\n"
        f"  mechbench check --operator {name}"
    )


def _filter(name: str) -> str:
    from mechbench.catalogue.description import description
    from mechbench.filters.base import RESERVED

    return description(FILTERS.entry(name), FILTERS.load(name), RESERVED)
