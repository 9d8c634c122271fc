"""The inside of a cell: one model built, trained and scored, and how that ended stored."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mechbench.console.signals import Stopper
from mechbench.data.held_out import check_something_to_train_on, keep_apart
from mechbench.data.streams import Unseen, draw, evaluation_batches
from mechbench.errors import OperatorError
from mechbench.ops.used import forget_ops_used, ops_used
from mechbench.plan.curriculum import tokens_before_full
from mechbench.record.files import write_text
from mechbench.record.outcome import CellOutcome, cell_outcome, ended
from mechbench.record.results import Result, read_result, write_json, write_json_once
from mechbench.record.seeds import derive
from mechbench.report.escape import csv_text
from mechbench.tasks.base import IGNORE, Batch, Task
from mechbench.training import loop
from mechbench.training.checkpoint import check_extra_state, load_checkpoint, save_checkpoint
from mechbench.training.cost import FlopsBeside
from mechbench.training.devices import wake_autograd
from mechbench.training.gate import Watchdog, after, before, guarded, naming, settle
from mechbench.training.kept import Trainer
from mechbench.training.lengths import check_longer, for_tokens, tokens_built_for, tokens_read
from mechbench.training.loop import Hooks, Progress, train, validate
from mechbench.training.memory import is_out_of_memory, peak_memory_mib
from mechbench.training.model import build_model
from mechbench.training.named_schedules import SCHEDULES
from mechbench.training.outcome import (
    empty_result,
    evaluation,
    note_non_finite,
    without_answer,
)
from mechbench.training.rehearsal import rehearse, wake
from mechbench.training.reuse import built_in_code
from mechbench.training.run import Run
from mechbench.training.schedules import Constant

_RESIDENT = 1 << 19  # numbers of validation inputs that stay on the device, in 12 MiB


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM arrived; the checkpoint is written."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.signal_number = signal_number


def run_cell(run: Run, *, keep: bool = False) -> Result:
    """Train and score the cell, and store how that ended, whatever it is.

    Args:
        run: to train from its beginning, or from its checkpoint on.
        keep: there is a result of a smaller budget, which must outlive an error or a lack of
            memory: neither is stored in its place.

    Raises:
        OperatorError: the operator raised, broke its contract or is not causal; stored too.
        ConfigError: the task leaves nothing to train on; nothing is stored.
        Interrupted: SIGINT or SIGTERM; a checkpoint is stored.
    """
    began = time.perf_counter()
    config, folder, console = run.config, run.folder, run.console
    result = empty_result(config, run.task, run.device)
    try:
        dog = Watchdog(config.operator, console.warn)
        with naming(config.operator), dog.watching():
            train_and_score(run, result, dog)
    except OperatorError as error:
        run.lane.failed(run.device)
        trained = result["stop"] is not None  # the other processes are waiting then
        result |= without_answer("error") | {"reason": str(error)}
        if not keep:
            _finish(result, folder, began)
        if trained:
            run.group.any(False)
        raise
    except Exception as error:
        run.lane.failed(run.device)
        if not is_out_of_memory(error):
            raise
        text = " ".join(str(error).split())[:300]
        result |= without_answer("out-of-memory") | {"reason": text}
        beside = "beside other cells" if run.lane.crowded else "with a single sequence"
        console.warn(f"out of memory {beside}: {text}")
        if keep:
            run.group.any(False)
            return Result(folder / "result.json", result)
    _finish(result, folder, began)
    run.group.any(False)
    return read_result(folder / "result.json")


def train_and_score(run: Run, result: dict[str, Any], dog: Watchdog | None = None) -> None:
    """Fill `result` as things become known, so that an error leaves what is known so far."""
    config, task, device = run.config, run.task, run.device
    waking = wake(device)
    torch.manual_seed(derive(config.seed, "init"))  # on the CPU: the same weights on any device
    model = build_model(config, tokens_built_for(config))
    result["parameters"] = sum(p.numel() for p in model.parameters())
    flops = FlopsBeside(model, task.input_seqlen, task.input_dim, device)
    setting, kind = (config.grad_clip, config.dtype), SCHEDULES[config.schedule]
    try:
        with run.kept.trainer(
            model, config.lr, config.weight_decay, setting, device, kind.optimizer
        ) as trainer:
            waking.join()
            wake_autograd(device)
            rehearse(trainer.model, run)
            with guarded(trainer.model, config.operator, dog):
                _train_and_score(run, result, trainer, flops, dog)
    finally:
        result["flops_per_token"] = flops.result()


def _train_and_score(
    run: Run, result: dict[str, Any], trainer: Trainer, flops: FlopsBeside, dog: Watchdog | None
) -> None:
    config, task, device, tasks = run.config, run.task, run.device, run.tasks()
    folder, console, group = run.folder, run.console, run.group
    model, optimizer = trainer.model, trainer.optimizer
    if tokens_read(config) > tokens_built_for(config):
        few = draw(task, 2, config.seed, "validation", 0, "cpu")
        check_longer(model, config, few.inputs, device)
    schedule = SCHEDULES[config.schedule](model, optimizer, config.warmup_steps)
    code = built_in_code(config)
    progress, warning = load_checkpoint(
        folder / "checkpoint.pt", config.cell_id, model, optimizer, config, schedule, code
    )
    if warning:
        console.warn(warning)
    _say_what_the_budget_holds(run, result, progress or Progress())
    if progress is None:
        progress = Progress()
        rows = progress.micro_batch(config, config.batch_size, task.input_seqlen)
        lengths = list(tasks.values())
        settle(before(model, config, lengths, rows, device, console.warn), result, config)
        progress.causal = bool(result["causal"])
        _between_parts(run)
    result["causal"] = progress.causal
    if (warning := check_extra_state(model, config.operator)) is not None:
        console.warn(warning)
    if device.startswith("cuda") and not run.lane.shared:
        torch.cuda.reset_peak_memory_stats(device)

    validation = evaluation_batches(task, config.n_validation, config.seed, "validation")
    tests = {
        length: (scored, evaluation_batches(scored, config.n_test, config.seed, "test"))
        for length, scored in tasks.items()
    }
    held_out = keep_apart(task, validation, tests[config.seqlen][1], config.seed, device)
    unseen = held_out.unseen
    if held_out.note and not group.rank:
        console.warn(held_out.note)
    batch_size = config.curriculum[-1][1]
    check_something_to_train_on(task, unseen, config.n_train, batch_size, config.seed, device)
    shares = [batch.map(group.share) for batch in held_out.validation]
    if sum(batch.inputs.numel() for batch in shares) <= _RESIDENT:
        shares = [batch.map(lambda tensor: tensor.to(device)) for batch in shares]
    if not group.rank:
        write_json_once(folder / "config.json", result["config"])
    _between_parts(run)
    forget_ops_used()  # the probe's
    save = partial(
        save_checkpoint, folder / "checkpoint.pt", config.cell_id, model, optimizer,
        schedule=schedule, code=code,
    )  # fmt: skip
    try:
        _train(run, trainer, schedule, progress, shares, unseen, flops, dog, save)
    finally:  # also where the operator fails: the row says how far it came
        result |= {
            "steps": progress.step,
            "train_tokens": progress.tokens,
            "excluded_examples": progress.excluded + progress.pending[2],
            "micro_batch_size": progress.micro_batch(config, config.batch_size, task.input_seqlen),
        }
        result.setdefault("seconds", {})["train"] = progress.train_s
    accuracy = _validated(run, trainer, schedule, progress, shares)
    if not group.rank:
        positions = sum(int((batch.targets != IGNORE).sum()) for batch in held_out.validation)
        _note_outcome(result, progress, accuracy, positions)
        with schedule.weights():
            _score(run, result, trainer, progress, tests, dog)


def _say_what_the_budget_holds(run: Run, result: dict[str, Any], progress: Progress) -> None:
    """Warn of a budget that may end before full length, or lies behind the run already.

    What stands beyond the budget is not trained back: it is the run of a budget of its tokens.
    """
    config, group = run.config, run.group
    if group.rank:
        return
    most = tokens_before_full(run.task, config.curriculum, config.validate_every)[1]
    if progress.tokens > config.budget_tokens:
        result["config"]["budget_tokens"] = progress.tokens
        run.console.warn(
            f"{run.folder} stands at {progress.tokens} tokens already, beyond the budget of "
            f"{config.budget_tokens}: it is scored as it is"
        )
        return
    short = most >= config.budget_tokens and progress.stage < len(config.curriculum) - 1
    # What only chooses a rate has a part of the budget, and is compared as far as it has come.
    if short and not config.tunes:
        run.console.warn(
            f"the budget of {config.budget_tokens} tokens may end before seqlen {config.seqlen}: "
            f"a curriculum that is not learnt reaches it after {most}"
        )


def _validated(
    run: Run, trainer: Trainer, schedule: Constant, progress: Progress, validation: list[Batch]
) -> float | None:
    """Return the validation accuracy of the weights as they are; None where they diverged.

    The rows of metrics fall on steps that know no budget. A budget mostly ends between two of them:
    then the weights are validated for the result alone, and nothing of that is in the progress, or
    a run that is carried on would be another than one that never stopped.
    """
    last = progress.metrics[-1] if progress.metrics else {}
    if progress.stop == "budget" and last.get("tokens") != progress.tokens:
        return validate(run, trainer.model, schedule, progress, validation).accuracy
    accuracy: float | None = last.get("validation_accuracy")
    return accuracy


def _note_outcome(
    result: dict[str, Any], progress: Progress, accuracy: float | None, positions: int
) -> None:
    """Say in `result` how training ended and how fast it was.

    Args:
        result: gets it.
        progress: of the training that ended.
        accuracy: of a validation at its end.
        positions: scored in a validation.
    """
    diverged = progress.stop == "diverged"
    result |= {
        "status": "diverged" if diverged else "ok",
        "reason": "the training loss is not finite" if diverged else None,
        "stop": progress.stop,
        "solved": progress.stop == "solved",
        "outcome": cell_outcome(
            progress.metrics, positions, loop.SOLVED, end=(progress.tokens, accuracy)
        ).to_dict(),
    }
    result["validation_accuracy"] = accuracy
    rates = [row["tokens_per_s"] for row in progress.metrics]
    if not rates and progress.tokens and progress.train_s:
        rates = [progress.tokens / progress.train_s]
    result["tokens_per_s"] = statistics.median(rates) if rates else None


def _between_parts(run: Run) -> None:
    """Let other cells of the process run, and end where they are told to.

    Raises:
        Interrupted: a signal arrived; there is a checkpoint of whatever was trained.
    """
    run.lane.pass_on(now=True)
    if (number := run.lane.stopped) is not None:
        raise Interrupted(number, "interrupted outside training; the same command continues")


def _score(
    run: Run,
    result: dict[str, Any],
    trainer: Trainer,
    progress: Progress,
    tests: dict[int, tuple[Task, list[Batch]]],
    dog: Watchdog | None,
) -> None:
    """Score the trained model at every length, and look once more whether it looks ahead."""
    config, device, model = run.config, run.device, trainer.model
    start = time.perf_counter()
    readers = {}
    for length, (scored, batches) in tests.items():
        run.console.say(f"scoring {config.n_test} test examples at seqlen {length}")
        reader = for_tokens(model, config, scored.input_seqlen, device)
        readers[length] = reader
        with guarded(reader, config.operator, dog) if reader is not model else nullcontext():
            found = evaluation(reader, scored, batches, progress, config, device)
        result["evaluations"].append(found)
        _between_parts(run)
    note_non_finite(result, config)
    # Of training and scoring: what goes on after the last step has only that.
    used = ops_used(config.device_type)
    result["fft_conv_backend"] = used.pop("fft_conv", None)
    result["kernels"] = used
    result["seconds"]["evaluate"] = time.perf_counter() - start
    if not run.lane.shared:  # it is the process's, not known of one of several cells
        trainer.peak_memory_mib = max(trainer.peak_memory_mib, peak_memory_mib(device))
        result["peak_memory_mib"] = trainer.peak_memory_mib
    for length, (scored, batches) in tests.items():
        rows, scored_rows = (
            progress.micro_batch(config, n, scored.input_seqlen)
            for n in (config.batch_size, config.n_test)
        )
        fault = after(readers[length], config, scored, batches[0], rows, scored_rows, device)
        settle(fault, result, config)
        _between_parts(run)


def _train(
    run: Run,
    trainer: Trainer,
    schedule: Constant,
    progress: Progress,
    validation: list[Batch],
    unseen: Unseen,
    flops: FlopsBeside,
    dog: Watchdog | None,
    store: Callable[[Progress], None],
) -> None:
    """Train with a progress bar and checkpoints, and stop between steps on a signal."""
    config, folder, console = run.config, run.folder, run.console
    model, optimizer = trainer.model, trainer.optimizer
    last_save = time.perf_counter()

    def save() -> None:
        nonlocal last_save
        if run.group.rank:
            return
        _write_metrics(folder / "metrics.csv", progress.metrics)
        store(progress)
        last_save = time.perf_counter()

    with (
        Stopper() as stopper,
        console.bar(
            config.budget_tokens,
            progress.tokens,
            f"{config.operator} on {config.task} at {config.seqlen}",
        ) as bar,
    ):

        def report(row: dict[str, Any]) -> None:
            bar.row(row)
            if row["seqlen"] == config.seqlen:  # now the GPU has its work from graphs
                flops.begin()

        def interrupted() -> bool:
            if dog is not None and run.lane.shared:
                dog.idle()  # others may take long
            run.lane.pass_on()
            return stopper.received is not None or run.lane.stopped is not None

        hooks = Hooks(
            interrupted=interrupted,
            checkpoint_due=lambda: time.perf_counter() - last_save >= run.checkpoint_s,
            checkpoint=save,
            report=report,
            advanced=bar.advance,
            warn=console.warn,
        )
        train(
            run, model, optimizer, schedule, progress, validation, unseen, hooks,
            graphs=trainer.graphs,
        )  # fmt: skip
    if not progress.stop:
        number = stopper.received or run.lane.stopped or 2
        raise Interrupted(
            number, f"interrupted at step {progress.step}; the same command continues from there"
        )


def _finish(result: dict[str, Any], folder: Path, began: float) -> None:
    result["seconds"]["total"] = time.perf_counter() - began
    known = CellOutcome(**result["outcome"]) if result["outcome"] else None
    result["outcome"] = ended(known, result["status"], result["train_tokens"]).to_dict()
    write_json_once(folder / "config.json", result["config"])
    write_json(folder / "result.json", result)


def _write_metrics(path: Path, rows: list[dict[str, Any]]) -> None:
    write_text(path, csv_text(rows))
