"""One cell from configuration to stored result: check, train, score, and never lose anything."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mechbench.catalogue.registry import load_plugins
from mechbench.catalogue.settings import check_call
from mechbench.console.progress_bar import Console
from mechbench.console.signals import Stopper
from mechbench.data.held_out import check_something_to_train_on, keep_apart
from mechbench.data.streams import Unseen, draw, evaluation_batches
from mechbench.errors import ConfigError, OperatorError
from mechbench.ops.fft_conv import backends_used, forget_backends_used
from mechbench.plan.resolve import resolve, task_of
from mechbench.record.config import Config
from mechbench.record.files import discard_if_empty, exclusive, make_folder, write_text
from mechbench.record.results import Result, read_or_set_aside, read_result, write_json
from mechbench.record.seeds import derive
from mechbench.report.escape import csv_text
from mechbench.tasks.base import Batch
from mechbench.training.checkpoint import check_extra_state, load_checkpoint, save_checkpoint
from mechbench.training.cost import flops_per_token
from mechbench.training.draws import callers_generators
from mechbench.training.gate import Watchdog, after, before, guard, naming, settle
from mechbench.training.lengths import check_longer, for_tokens, tokens_built_for
from mechbench.training.loop import Hooks, Progress, train
from mechbench.training.memory import is_out_of_memory, peak_memory_mib
from mechbench.training.model import build_model
from mechbench.training.optimiser import make_optimizer
from mechbench.training.outcome import empty_result, evaluation, note_non_finite
from mechbench.training.parallel import Group, join
from mechbench.training.reuse import may_resume
from mechbench.training.run import Run

CHECKPOINT_S = 30.0  # seconds between checkpoints
_RETRIED = ("error", "out-of-memory")  # statuses that another machine or day may mend


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM arrived; the checkpoint is written."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.signal_number = signal_number


def run(
    operator: str = "hyena",
    task: str = "recall",
    *,
    seqlen: int | None = None,
    vocab_size: int | None = None,
    d_model: int | None = None,
    n_layers: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    curriculum: str = "auto",
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
    **settings: Any,
) -> Result:
    """Train one operator on one task and score it; a finished cell is read, not run again.

    Args:
        operator: registered name.
        task: registered name.
        seqlen: L, tokens of the task; by default the task's own.
        vocab_size: V; by default the task's own.
        d_model: D.
        n_layers: blocks of the model.
        lr: peak learning rate.
        batch_size: sequences a step.
        curriculum: "auto": lengths grow to `seqlen`, the same way for every operator; "none": full
            length from the first step.
        budget_tokens: training tokens, at most; training stops earlier once solved.
        seed: of initialisation and data.
        eval_seqlens: lengths to score beside `seqlen`.
        device: "auto", "cpu", "cuda" or "cuda:N".
        dtype: "auto", "float32" or "bfloat16".
        operator_options: the operator's keyword arguments.
        task_options: the task's parameters.
        plugins: plugin files to load first.
        out: folder that gets `<cell id>/`.
        resume: go on from what is stored; False removes it and starts over.
        allow_noncausal: train an operator that looks ahead too, and mark the result.
        quiet: no progress bar; by default where standard error is no terminal.
        checkpoint_s: seconds between checkpoints.
        console: where messages and the bar go; by default standard error, as `quiet` says.
        data_parallel: processes that share each step's sequences; every one calls this, as under
            torchrun, and the first one stores.
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
    config, device = resolve(
        operator,
        task,
        seqlen=seqlen,
        vocab_size=vocab_size,
        d_model=d_model,
        n_layers=n_layers,
        lr=lr,
        batch_size=batch_size,
        curriculum=curriculum,
        budget_tokens=budget_tokens,
        seed=seed,
        eval_seqlens=eval_seqlens,
        device=device,
        dtype=dtype,
        operator_options=operator_options,
        task_options=task_options,
        allow_noncausal=allow_noncausal,
        **settings,
    )
    folder = Path(out) / config.cell_id
    group, device = _join(data_parallel, config, device)
    if group.rank:
        return _follow(Run(config, device, task_of(config), group, folder))
    console = console or Console(quiet)
    return _lead(Run(config, device, task_of(config), group, folder, console, checkpoint_s), resume)


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
    """Run the cell, unless its result is stored, as the process that stores it."""
    config, folder, console = run.config, run.folder, run.console
    make_folder(folder)
    with exclusive(folder), callers_generators(run.device):
        resume = resume and may_resume(config, folder, console)
        if not resume:
            for name in ("result.json", "checkpoint.pt", "metrics.csv", "config.json"):
                (folder / name).unlink(missing_ok=True)
        stored, warning = read_or_set_aside(folder / "result.json", config.cell_id)
        if warning:
            console.warn(warning)
        if stored is not None and stored.data["status"] not in _RETRIED:
            run.group.any(False)  # the others wait for what to do
            console.say(f"already done: {folder} (--fresh runs it again)")
            return stored
        run.group.any(True)
        try:
            return _run_cell(run)
        except BaseException:
            discard_if_empty(folder)  # what failed before training leaves nothing
            raise


def _join(processes: int, config: Config, device: str) -> tuple[Group, str]:
    fewest = min(batch_size for _, batch_size in config.curriculum)
    if processes > fewest:
        raise ConfigError(f"data_parallel is {processes}: a step has only {fewest} sequences")
    return join(processes, device)


def _follow(run: Run) -> Result:
    """Take part in a run that the first process leads; return what that one stored."""
    if run.group.any(False):
        _train_and_score(run, {})
        run.group.any(False)  # until it is stored
    return read_result(run.folder / "result.json")


def _run_cell(run: Run) -> Result:
    began = time.perf_counter()
    config, folder, console = run.config, run.folder, run.console
    result = empty_result(config, run.task, run.device)
    try:
        dog = Watchdog(config.operator, console.warn)
        with naming(config.operator), dog.watching():
            _train_and_score(run, result, dog)
    except OperatorError as error:
        trained = result["stop"] is not None  # then the other processes wait
        result |= {"status": "error", "stop": "error", "reason": str(error)}
        _finish(result, folder, began)
        if trained:
            run.group.any(False)
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        text = " ".join(str(error).split())[:300]
        result |= {"status": "out-of-memory", "stop": "out-of-memory", "reason": text}
        console.warn(f"out of memory with a single sequence: {text}")
    _finish(result, folder, began)
    run.group.any(False)
    return read_result(folder / "result.json")


def _train_and_score(run: Run, result: dict[str, Any], dog: Watchdog | None = None) -> None:
    """Fill `result` step by step, so that what is known survives an error."""
    config, task, device, tasks = run.config, run.task, run.device, run.tasks()
    folder, console, group = run.folder, run.console, run.group
    forget_backends_used()
    torch.manual_seed(derive(config.seed, "init"))  # on the CPU: the same weights on any device
    model = build_model(config, tokens_built_for(config))
    result["parameters"] = sum(p.numel() for p in model.parameters())
    result["flops_per_token"] = flops_per_token(model, task.input_seqlen, task.input_dim)
    model.to(device)
    guard(model, config.operator, dog)
    check_longer(model, config, draw(task, 2, config.seed, "validation", 0, "cpu").inputs, device)
    optimizer = make_optimizer(model, config.lr, config.weight_decay)
    progress, warning = load_checkpoint(
        folder / "checkpoint.pt", config.cell_id, model, optimizer, config
    )
    if warning:
        console.warn(warning)
    if progress is None:
        progress = Progress()
        rows = progress.micro_batch(config, config.batch_size, task.input_seqlen)
        lengths = list(tasks.values())
        settle(before(model, config, lengths, rows, device, console.warn), result, config)
        progress.causal = bool(result["causal"])
    result["causal"] = progress.causal
    if (warning := check_extra_state(model, config.operator)) is not None:
        console.warn(warning)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)

    validation = evaluation_batches(task, config.n_validation, config.seed, "validation")
    tests = {
        length: evaluation_batches(scored, config.n_test, config.seed, "test")
        for length, scored in tasks.items()
    }
    held_out = keep_apart(task, validation, tests[config.seqlen], config.seed, device)
    unseen = held_out.unseen
    if held_out.note and not group.rank:
        console.warn(held_out.note)
    batch_size = config.curriculum[-1][1]
    check_something_to_train_on(task, unseen, config.n_train, batch_size, config.seed, device)
    shares = [batch.map(group.share) for batch in held_out.validation]
    if not group.rank:
        write_json(folder / "config.json", config.to_dict())
    try:
        _train(run, model, optimizer, progress, shares, unseen)
    finally:  # also where the operator fails: the row says how far it came
        result |= {
            "steps": progress.step,
            "train_tokens": progress.tokens,
            "excluded_examples": progress.excluded,
            "micro_batch_size": progress.micro_batch(config, config.batch_size, task.input_seqlen),
        }
        result.setdefault("seconds", {})["train"] = progress.train_s
    if group.rank:
        return
    result |= {
        "status": "diverged" if progress.stop == "diverged" else "ok",
        "reason": "the training loss is not finite" if progress.stop == "diverged" else None,
        "stop": progress.stop,
        "solved": progress.stop == "solved",
        "fft_conv_backend": ", ".join(sorted(backends_used())) or None,
    }
    validated = [row["validation_accuracy"] for row in progress.metrics]
    result["validation_accuracy"] = validated[-1] if validated else None
    rates = [row["tokens_per_s"] for row in progress.metrics]
    result["tokens_per_s"] = statistics.median(rates) if rates else None
    start = time.perf_counter()
    readers = {}
    for length, batches in tests.items():
        console.say(f"scoring {config.n_test} test examples at seqlen {length}")
        scored = tasks[length]
        reader = for_tokens(model, config, scored.input_seqlen, device)
        if reader is not model:
            guard(reader, config.operator, dog)
        readers[length] = reader
        result["evaluations"].append(evaluation(reader, scored, batches, progress, config, device))
    note_non_finite(result, config)
    result["seconds"]["evaluate"] = time.perf_counter() - start
    result["peak_memory_mib"] = peak_memory_mib(device)
    for length, batches in tests.items():
        scored = tasks[length]
        rows, scored_rows = (
            progress.micro_batch(config, n, scored.input_seqlen)
            for n in (config.batch_size, config.n_test)
        )
        found = after(readers[length], config, scored, batches[0], rows, scored_rows, device)
        settle(found, result, config)


def _train(
    run: Run,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    validation: list[Batch],
    unseen: Unseen,
) -> None:
    """Train with a bar, checkpoints and a place for signals to land."""
    config, folder, console = run.config, run.folder, run.console
    last_save = time.perf_counter()

    def save() -> None:
        nonlocal last_save
        if run.group.rank:
            return
        _write_metrics(folder / "metrics.csv", progress.metrics)
        save_checkpoint(folder / "checkpoint.pt", config.cell_id, model, optimizer, progress)
        last_save = time.perf_counter()

    with (
        Stopper() as stopper,
        console.bar(
            config.budget_tokens,
            progress.tokens,
            f"{config.operator} on {config.task} at {config.seqlen}",
        ) as bar,
    ):
        hooks = Hooks(
            interrupted=lambda: stopper.received is not None,
            checkpoint_due=lambda: time.perf_counter() - last_save >= run.checkpoint_s,
            checkpoint=save,
            report=bar.row,
            advanced=bar.advance,
            warn=console.warn,
        )
        train(run, model, optimizer, progress, validation, unseen, hooks)
    if not progress.stop:
        number = stopper.received or 2
        raise Interrupted(
            number, f"interrupted at step {progress.step}; the same command continues from there"
        )


def _finish(result: dict[str, Any], folder: Path, began: float) -> None:
    result["seconds"]["total"] = time.perf_counter() - began
    write_json(folder / "config.json", result["config"])
    write_json(folder / "result.json", result)


def _write_metrics(path: Path, rows: list[dict[str, Any]]) -> None:
    write_text(path, csv_text(rows))
