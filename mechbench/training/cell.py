"""One cell from what a caller gave to its stored result: resolved, locked, resumed or read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mechbench.catalogue.plugins import load_plugins
from mechbench.catalogue.registry import OPERATORS
from mechbench.catalogue.settings import check_call, path_of
from mechbench.console.progress_bar import Console
from mechbench.errors import ConfigError
from mechbench.plan.called import task_called
from mechbench.plan.resolve import resolve, task_of
from mechbench.record.config import Config
from mechbench.record.files import discard_if_empty, exclusive, make_folder
from mechbench.record.results import RETRIED, Result, answers, read_or_set_aside, read_result
from mechbench.tasks.base import Task
from mechbench.training.devices import on
from mechbench.training.draws import callers_generators
from mechbench.training.kept import Kept
from mechbench.training.lane import SOLE, Lane
from mechbench.training.parallel import Group, join
from mechbench.training.reuse import may_resume, with_budget
from mechbench.training.run import Run
from mechbench.training.train_cell import Interrupted, run_cell, train_and_score

__all__ = ["CHECKPOINT_S", "Interrupted", "run", "run_config"]

CHECKPOINT_S = 30.0  # seconds between checkpoints


def run(
    operator: str | Callable[..., Any] = "hyena",
    task: str | Callable[..., Any] | Task = "recall",
    *,
    seqlen: int | None = None,
    vocab_size: int | None = None,
    d_model: int | None = None,
    n_layers: int | None = None,
    short_conv: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    curriculum: str = "auto",
    schedule: str | None = None,
    budget_tokens: int | None = None,
    seed: int = 0,
    eval_seqlens: Sequence[int] = (),
    device: str = "auto",
    dtype: str = "auto",
    operator_options: Mapping[str, Any] | None = None,
    task_options: Mapping[str, Any] | None = None,
    plugins: str | Sequence[str] = (),
    out: str | Path = "runs",
    resume: bool = True,
    allow_noncausal: bool = False,
    quiet: bool | None = None,
    checkpoint_s: float = CHECKPOINT_S,
    console: Console | None = None,
    data_parallel: int = 1,
    kept: Kept | None = None,
    lane: Lane = SOLE,
    **settings: Any,
) -> Result:
    """Train one operator on one task and score it; a finished cell is read, or carried on.

    Args:
        operator: registered name, or a class or factory; one that is not registered is now.
        task: the same, or a task object, which has its own sizes and options.
        seqlen: L, tokens of the task; by default the task's own.
        vocab_size: V; by default the task's own.
        d_model: D.
        n_layers: blocks of the model.
        short_conv: taps of a causal convolution before every operator; 0, the default: none.
        lr: peak learning rate.
        batch_size: sequences per step.
        curriculum: "auto": short sequences first, growing to `seqlen` in the same way for every
            operator; "none": full length from the start.
        schedule: of the learning rate: "constant", "averaged" (weights), "wsd" or "schedule-free".
        budget_tokens: most training tokens; training stops earlier once the task is solved. A
            larger budget than that of a stored result carries it on, as if it had never stopped.
        seed: of initialisation and data.
        eval_seqlens: lengths to score beside `seqlen`.
        device: "auto", "cpu", "cuda" or "cuda:N".
        dtype: "auto", "float32" or "bfloat16".
        operator_options: the operator's keyword arguments.
        task_options: the task's parameters.
        plugins: plugin files to load first.
        out: folder that gets `<cell id>/`.
        resume: continue from what is stored; False removes it and starts over.
        allow_noncausal: train an operator even if it looks ahead, and mark the result.
        quiet: show no progress bar; the default if standard error is not a terminal.
        checkpoint_s: seconds between checkpoints.
        console: shows messages and the bar; by default on standard error, as `quiet` says.
        data_parallel: number of processes that share the sequences of every step; each of them
            calls this, as under torchrun, and the first one stores the result.
        kept: what cells of one kind, run one after another, share: captured steps.
        lane: the cell's place beside others in this process, by default its only one.
        settings: further fields of `mechbench.record.config.Config`.

    Returns:
        The stored result. A run that diverged or ran out of memory has a result that says so.

    Raises:
        ConfigError: a setting is wrong.
        PluginError: a plugin cannot be loaded.
        OperatorError: the operator raised, broke its contract or is not causal.
        ResultError: the folder is in use, or cannot be written.
        Interrupted: SIGINT or SIGTERM; the same call continues.
    """
    check_call(
        out=out, checkpoint_s=checkpoint_s, data_parallel=data_parallel,
        resume=resume, quiet=quiet,
    )  # fmt: skip
    load_plugins(plugins)
    asked = {"seqlen": seqlen, "vocab_size": vocab_size, "task_options": task_options}
    task_name, of_task = task_called(task, asked)
    config, device = resolve(
        OPERATORS.named(operator),
        task_name,
        **of_task,
        d_model=d_model,
        n_layers=n_layers,
        short_conv=short_conv,
        lr=lr,
        batch_size=batch_size,
        curriculum=curriculum,
        schedule=schedule,
        budget_tokens=budget_tokens,
        seed=seed,
        eval_seqlens=eval_seqlens,
        device=device,
        dtype=dtype,
        operator_options=operator_options,
        allow_noncausal=allow_noncausal,
        **settings,
    )
    folder = path_of("out", out) / config.cell_id
    group, device = _join(data_parallel, config, device)
    if group.rank:
        return _follow(Run(config, device, task_of(config), group, folder))
    console = console or Console(quiet)
    kept = kept or Kept()
    run_ = Run(config, device, task_of(config), group, folder, console, checkpoint_s, kept, lane)
    return _lead(run_, resume)


def run_config(
    config: Config, out: str | Path, device: str, console: Console | None = None
) -> Result:
    """Train a cell from its complete configuration, or read it if that is done; raises as `run`."""
    return _lead(
        Run(
            config, device, task_of(config), folder=Path(out) / config.cell_id,
            console=console or Console(), checkpoint_s=CHECKPOINT_S,
        )
    )  # fmt: skip


def _lead(run: Run, resume: bool = True) -> Result:
    """Run the cell unless its result is stored already, and store what comes of it."""
    config, folder, console = run.config, run.folder, run.console
    make_folder(folder)
    with exclusive(folder), on(run.device), callers_generators(run.device):
        resume = resume and may_resume(config, folder, console)
        if not resume:
            for name in ("result.json", "checkpoint.pt", "metrics.csv", "config.json"):
                (folder / name).unlink(missing_ok=True)
        stored, warning = read_or_set_aside(folder / "result.json", config.cell_id)
        if warning:
            console.warn(warning)
        if stored is not None and answers(stored.data, config.budget_tokens):
            stored = with_budget(stored, config)
            run.group.any(False)  # the other processes wait to be told
            _say_how_far(stored, config, console)
            return stored
        run.group.any(True)
        keep = stored is not None and stored.data["status"] not in RETRIED
        if stored is not None and keep:
            console.say(
                f"carrying on {folder}, trained on {stored.data['train_tokens']} tokens, to "
                f"{config.budget_tokens}"
            )
        try:
            return run_cell(run, keep=keep)
        except BaseException:
            discard_if_empty(folder)  # a failure before training leaves no folder
            raise


def _say_how_far(stored: Result, config: Config, console: Console) -> None:
    """Say that a stored result is read, and how far it went where that is beyond the budget."""
    trained, folder = stored.data["train_tokens"], stored.path.parent
    if trained > config.budget_tokens:
        console.warn(
            f"{folder} was trained on {trained} tokens, beyond the budget of "
            f"{config.budget_tokens}: its result is read (--fresh runs it again)"
        )
    else:
        console.say(
            f"already done: {folder}, trained on {trained} tokens with a budget of "
            f"{stored.data['config']['budget_tokens']} (--fresh runs it again)"
        )


def _join(processes: int, config: Config, device: str) -> tuple[Group, str]:
    fewest = min(batch_size for _, batch_size in config.curriculum)
    if processes > fewest:
        raise ConfigError(
            f"data_parallel is {processes}: expected at most {fewest}, the sequences of a step"
        )
    return join(processes, device)


def _follow(run: Run) -> Result:
    """Take part in a run that another process leads; return the result that it stored."""
    if run.group.any(False):
        train_and_score(run, {})
        run.group.any(False)  # until it is stored
    return read_result(run.folder / "result.json")
