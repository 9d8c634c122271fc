"""`mechbench run`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from mechbench.catalogue.options import parse_pairs
from mechbench.catalogue.plugins import load_plugins
from mechbench.catalogue.registry import OPERATORS, TASKS
from mechbench.cli.arguments import OPERATOR_OPTION, TASK_OPTION, Setting
from mechbench.console.progress_bar import Console
from mechbench.console.tracking import TRACKERS, TrackedConsole, check_tracker
from mechbench.record.config import LOSSES, SCHEDULE, SCHEDULES
from mechbench.training.parallel import follows, launched

# What `mechbench.training.cell.run` takes beside the configuration.
_CALL = ("out", "resume", "checkpoint_s", "data_parallel", "quiet")


@click.command("run")
@click.option(
    "--operator", required=True, help="Operator to train; see `mechbench list operators`."
)
@click.option("--task", required=True, help="Task to train it on; see `mechbench list tasks`.")
@click.option(
    "--seqlen", type=Setting("seqlen"), help="Sequence length in tokens.  [default: the task's]"
)
@click.option(
    "--vocab-size", type=Setting("vocab_size"), help="Vocabulary size.  [default: the task's]"
)
@click.option("--d-model", type=Setting("d_model"), help="Model width.  [default: 64]")
@click.option(
    "--n-layers",
    type=Setting("n_layers"),
    help="Number of blocks, each an operator and an MLP.  [default: 2]",
)
@click.option(
    "--short-conv",
    type=Setting("short_conv"),
    help="Taps of a causal convolution of each channel before every operator; 0: none.  "
    "[default: 0]",
)
@click.option("--lr", type=Setting("lr"), help="Peak learning rate.  [default: 0.004]")
@click.option(
    "--budget",
    type=Setting("budget_tokens"),
    help="Most tokens to train on, such as 20M; training ends earlier once the task is solved. A "
    "larger budget carries a stored run on.  [default: 1500 steps' worth]",
)
@click.option(
    "--batch-size",
    type=Setting("batch_size"),
    help="Sequences per training step; if they do not fit in memory, they are processed in parts.  "
    "[default: 64, fewer for long sequences]",
)
@click.option(
    "--curriculum",
    type=click.Choice(["auto", "none"]),
    default="auto",
    show_default=True,
    help="auto: start with short sequences and grow to --seqlen; none: full length from the start.",
)
@click.option(
    "--schedule",
    type=click.Choice(SCHEDULES),
    help="Schedule of the learning rate after the warm-up; none depends on the budget.  "
    f"[default: {SCHEDULE}]",
)
@click.option(
    "--seed",
    type=Setting("seed"),
    default=0,
    show_default=True,
    help="Seed of the initial weights and of the data.",
)
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
    help="Further length to score the trained model at (repeatable).",
)
@OPERATOR_OPTION
@TASK_OPTION
@click.option(
    "--loss-on",
    type=click.Choice(LOSSES),
    help="dense: train on every predictable position; scored: only on those that are scored; both: "
    "these have a tenth of the loss to themselves.  [default: both]",
)
@click.option("--test-examples", "n_test", type=Setting("n_test"), help="Number of test examples.")
@click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="FILE.py",
    help="File that registers operators, tasks or filters (repeatable; also MECHBENCH_PLUGINS).",
)
@click.option(
    "--out",
    default="runs",
    show_default=True,
    help="Folder for results; each configuration gets a folder in it.",
)
@click.option(
    "--resume/--fresh",
    default=True,
    help="Continue from what is stored, or start over.  [default: resume]",
)
@click.option(
    "--allow-noncausal",
    is_flag=True,
    help="Train an operator even if it looks ahead; the result is marked.",
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
    help="Tracker to log the metrics to as well; its files go below --out.",
)
@click.option(
    "--data-parallel",
    type=Setting("data_parallel"),
    default=1,
    show_default=True,
    help="Number of processes that share the sequences of every step, each on its own GPU; also "
    "under torchrun.",
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

    The same command continues an interrupted run, and shows the result of a finished one; with a
    larger --budget it carries an unsolved one on from where it stopped.
    """
    check_tracker(log)
    operator_options = parse_pairs(options)
    task_parameters = parse_pairs(task_options, "--task-option")
    load_plugins(plugins)
    OPERATORS.entry(operator)
    TASKS.entry(task)
    # Imported only now, so that the errors above need not wait for torch.
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
