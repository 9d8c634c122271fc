"""`mechbench run`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from mechbench.catalogue.options import parse_pairs
from mechbench.catalogue.registry import OPERATORS, TASKS, load_plugins
from mechbench.cli.arguments import Setting
from mechbench.console.progress_bar import Console
from mechbench.console.tracking import TRACKERS, TrackedConsole, check_tracker
from mechbench.training.parallel import follows, launched

# What `mechbench.training.cell.run` takes beside the configuration.
_CALL = ("out", "resume", "checkpoint_s", "data_parallel", "quiet")


@click.command("run")
@click.option("--operator", required=True, help="Operator; see `mechbench list operators`.")
@click.option("--task", required=True, help="Task; see `mechbench list tasks`.")
@click.option(
    "--seqlen", type=Setting("seqlen"), help="Task length, tokens.  [default: the task's]"
)
@click.option("--vocab-size", type=Setting("vocab_size"), help="Vocabulary.  [default: the task's]")
@click.option("--d-model", type=Setting("d_model"), help="Model width.  [default: 64]")
@click.option(
    "--n-layers", type=Setting("n_layers"), help="Blocks of operator and MLP.  [default: 2]"
)
@click.option("--lr", type=Setting("lr"), help="Peak learning rate.  [default: 0.004]")
@click.option(
    "--budget",
    type=Setting("budget_tokens"),
    help="Training tokens at most; training ends once solved.  [default: 1500 steps' worth]",
)
@click.option(
    "--batch-size",
    type=Setting("batch_size"),
    help="Sequences a step, whatever the memory.  [default: 64, fewer at length]",
)
@click.option(
    "--curriculum",
    type=click.Choice(["auto", "none"]),
    default="auto",
    show_default=True,
    help="auto: lengths grow to seqlen; none: full length from the first step.",
)
@click.option("--seed", type=Setting("seed"), default=0, show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="auto: bfloat16 autocast on CUDA, float32 on a CPU.",
)
@click.option(
    "--eval-seqlen",
    "eval_seqlens",
    type=Setting("seqlen"),
    multiple=True,
    help="Score at this length too (repeatable).",
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option of the operator (repeatable).",
)
@click.option(
    "--task-option",
    "task_options",
    multiple=True,
    metavar="KEY=VALUE",
    help="Parameter of the task (repeatable).",
)
@click.option(
    "--loss-on",
    type=click.Choice(["dense", "scored"]),
    help="Train on every predictable position, or only on those scored.  [default: dense]",
)
@click.option("--test-examples", "n_test", type=Setting("n_test"), help="Examples of the test set.")
@click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="FILE.py",
    help="File that registers operators, tasks or filters (repeatable; also MECHBENCH_PLUGINS).",
)
@click.option(
    "--out", default="runs", show_default=True, help="Folder of results, one a configuration."
)
@click.option(
    "--resume/--fresh", default=True, help="Continue from what is stored (default), or start over."
)
@click.option(
    "--allow-noncausal", is_flag=True, help="Train an operator that looks ahead; marks the result."
)
@click.option(
    "--checkpoint-every",
    "checkpoint_s",
    type=Setting("checkpoint_s"),
    default=30.0,
    show_default=True,
    help="Seconds between checkpoints.",
)
@click.option(
    "--log",
    type=click.Choice(TRACKERS),
    default="none",
    show_default=True,
    help="Metrics to a tracker too, below --out.",
)
@click.option(
    "--data-parallel",
    type=Setting("data_parallel"),
    default=1,
    show_default=True,
    help="Processes that share each step's sequences, a GPU each; also under torchrun.",
)
@click.option("--quiet", is_flag=True, default=None, help="No progress bar.")
def command(
    operator: str,
    task: str,
    budget: int | None,
    options: tuple[str, ...],
    task_options: tuple[str, ...],
    plugins: tuple[str, ...],
    log: str,
    **settings: Any,
) -> None:
    """Train one operator on one task, score it on unseen examples and store the result.

    The same command continues an interrupted run, and reads a finished one.
    """
    check_tracker(log)
    operator_options = parse_pairs(options)
    task_parameters = parse_pairs(task_options, "--task-option")
    load_plugins(plugins)
    OPERATORS.entry(operator)
    TASKS.entry(task)
    # Only now: what is wrong above is said without waiting for torch.
    from mechbench.plan.resolve import check_without_torch

    check_without_torch(
        operator,
        task,
        task_options=task_parameters,
        budget_tokens=budget,
        **{key: value for key, value in settings.items() if key not in _CALL},
    )
    if settings["data_parallel"] > 1 and not launched():
        from mechbench.training.launch import launch

        OPERATORS.must_have_file(operator)
        TASKS.must_have_file(task)
        raise SystemExit(launch(settings["data_parallel"], sys.argv[1:]))
    from mechbench.report.summary import summary
    from mechbench.training.cell import run

    if log != "none":
        name = f"{operator}-{task}-{settings['seqlen'] or 'default'}-{settings['seed']}"
        console = Console(settings["quiet"])
        settings["console"] = TrackedConsole(console, log, Path(settings["out"]), name)
    result = run(
        operator,
        task,
        operator_options=operator_options,
        task_options=task_parameters,
        plugins=plugins,
        budget_tokens=budget,
        **settings,
    )
    if settings["data_parallel"] == 1 or not follows():
        click.echo(summary(result))
