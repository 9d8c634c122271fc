"""One cell of `ablate_schedules.py`: a model trained under a schedule until it is solved.

It trains as `mechbench.training.loop.train` does, from the same pieces, but for the schedule, which
may know the budget here, and for two rules that can be chosen: when a stage of the curriculum ends
at the latest, and when to validate.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from mechbench.catalogue.settings import setting
from mechbench.data.examples import TrainExamples
from mechbench.data.held_out import keep_apart
from mechbench.data.streams import TrainStream, evaluation_batches
from mechbench.errors import ConfigError, nearest
from mechbench.plan.curriculum import ADVANCE, stage_lr, stage_task
from mechbench.plan.resolve import resolve, task_of
from mechbench.record.seeds import derive
from mechbench.training.branches import StableDecay
from mechbench.training.draws import seed_step
from mechbench.training.evaluation import evaluate
from mechbench.training.kept import Kept, Trainer
from mechbench.training.lengths import tokens_built_for
from mechbench.training.loop import SOLVED, Progress, step_gradients
from mechbench.training.model import Backbone, build_model
from mechbench.training.rehearsal import rehearse, wake
from mechbench.training.run import Run
from mechbench.training.schedules import Averaged, Constant, Cosine, ScheduleFree
from mechbench.training.step import Graphs, Stepper

SCHEDULES: dict[str, type[Constant]] = {
    "cosine": Cosine, "constant": Constant, "averaged": Averaged, "wsd": StableDecay,
    "schedule-free": ScheduleFree,
}  # fmt: skip
_SIZES = ("seqlen", "vocab_size")
GROWTH = 1.05  # of the tokens from validation to validation, at least


@dataclass(frozen=True)
class Cell:
    """One model to train; operator, task and schedule with their options, as they were given."""

    operator: str
    task: str
    schedule: str
    lr: float
    seed: int
    tuning: bool  # its seed is not reported
    budget_tokens: int
    stage_tokens: int
    validate_tokens: int
    curriculum: str
    d_model: int
    n_layers: int


@dataclass(frozen=True)
class Limits:
    """Where and until when a process trains; nothing here changes a result."""

    device: str
    dtype: str
    deadline: float  # of time.time()


_KEPT = Kept(cells=True)  # captured steps, for cells that differ in schedule, rate or seed only


def named(text: str) -> tuple[str, dict[str, str]]:
    """Split "name,option=value,..." into the name and its options."""
    name, *pairs = text.split(",")
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"{pair!r} in {text!r}: expected option=value")
        options[key] = value
    return name, options


def make_schedule(text: str, budget_tokens: int) -> tuple[type[Constant], dict[str, float], int]:
    """Return the class of a schedule, its options, and the tokens that a run of it may take."""
    name, given = named(text)
    if name not in SCHEDULES:
        raise ConfigError(f"unknown schedule {name!r}: {nearest(name, SCHEDULES)}")
    kind, options = SCHEDULES[name], {}
    for key, value in given.items():
        known = kind.__init__.__kwdefaults__ or {}
        if key not in known and (kind is not Cosine or key != "budget_tokens"):
            raise ConfigError(f"unknown option {key!r} of {name}: {nearest(key, known)}")
        try:
            options[key] = float(value)
        except ValueError:
            raise ConfigError(f"{key} is {value!r}: expected a number") from None
    if kind is Cosine:
        budget_tokens = int(min(budget_tokens, options.setdefault("budget_tokens", budget_tokens)))
    return kind, options, budget_tokens


def make_run(cell: Cell, limits: Limits) -> Run:
    """Resolve a cell to a run of the package."""
    operator, options = named(cell.operator)
    task, task_options = named(cell.task)
    sizes: dict[str, Any] = {}
    for key in _SIZES:
        if key in task_options:
            text = task_options.pop(key)
            sizes[key] = setting(key, int(text) if text.isdigit() else text)
    config, device = resolve(
        operator, task, operator_options=options, task_options=task_options, lr=cell.lr,
        seed=cell.seed, curriculum=cell.curriculum, budget_tokens=cell.budget_tokens,
        d_model=cell.d_model, n_layers=cell.n_layers, device=limits.device, dtype=limits.dtype,
        **sizes,
    )  # fmt: skip
    return Run(config, device, task_of(config), kept=_KEPT)


@contextmanager
def trainer_of(
    run: Run, model: Backbone, kind: type[Constant], options: dict[str, float]
) -> Iterator[Trainer]:
    """Give the model on its device with the schedule's optimizer; AdamW is kept for the next."""
    config = run.config
    if kind is not ScheduleFree:
        setting = config.grad_clip, config.dtype
        with _KEPT.trainer(model, config.lr, config.weight_decay, setting, run.device) as trainer:
            yield trainer
        return
    model.to(run.device)
    optimizer = kind.optimizer(model, config.lr, config.weight_decay, **options)
    yield Trainer(model, optimizer, Graphs(keep=True))


def train(
    run: Run,
    trainer: Trainer,
    schedule: Constant,
    cell: Cell,
    budget_tokens: int,
    deadline: float,
) -> dict[str, Any] | None:
    """Train until solved, diverged or out of budget; return what is found, None at the deadline."""
    config, task, device = run.config, run.task, run.device
    model, on_cuda = trainer.model, device.startswith("cuda")
    progress, warnings = Progress(), list[str]()
    validation = evaluation_batches(task, config.n_validation, config.seed, "validation")
    test = evaluation_batches(task, config.n_test, config.seed, "test")
    held_out = keep_apart(task, validation, test, config.seed, device)
    validation = [batch.map(lambda tensor: tensor.to(device)) for batch in held_out.validation]
    tasks = [stage_task(task, length) for length, _ in config.curriculum]
    examples = [
        TrainExamples(
            TrainStream(task_, batch_size, config.seed, device),
            loss_on=config.loss_on,
            unseen=held_out.unseen if task_ is tasks[-1] else None,
        )
        for task_, (_, batch_size) in zip(tasks, config.curriculum, strict=True)
    ]
    stepper = Stepper(
        model, trainer.optimizer,
        lambda inputs, targets: step_gradients(
            model, inputs, targets, run, progress, warnings.append
        ),
        config.grad_clip, on_cuda, warnings.append, trainer.graphs,
    )  # fmt: skip
    counts = torch.zeros(2, dtype=torch.int64, device=device)
    found: dict[str, Any] = {"solved_tokens": None, "diverged": False, "stages": []}
    validations: list[tuple[int, float, int]] = []  # tokens, accuracy, whether in a branch
    next_tokens, stage_step = 0, 0  # the next validation, of the trunk; first step of the stage
    model.train()
    while not progress.stop:
        if time.time() > deadline:
            return None
        now, batch_size = tasks[progress.stage], config.curriculum[progress.stage][1]
        final = progress.stage == len(tasks) - 1
        inputs, targets, _ = examples[progress.stage].at(progress.step)
        factor = schedule.factor(progress.step, progress.tokens)
        factor *= stage_lr(config.curriculum, progress.stage)
        seed_step(config.seed, progress.step, device)
        micro_batch = progress.micro_batch(config, *inputs.shape[:2])
        replayed = stepper.replay(inputs, targets, factor, micro_batch)
        loss, right, norm = replayed or stepper.gradients(inputs, targets)
        if not replayed:
            stepper.update(factor)
        counts += right
        step_tokens = batch_size * now.input_seqlen
        progress.step, progress.tokens = progress.step + 1, progress.tokens + step_tokens
        progress.stage_tokens += step_tokens
        schedule.updated(progress.step)
        last = progress.tokens + step_tokens > budget_tokens
        trunk_tokens = progress.tokens - schedule.aside_tokens
        if schedule.branching:
            due = schedule.due(progress.tokens)
        elif final:
            next_tokens = next_tokens or trunk_tokens - step_tokens + cell.validate_tokens
            due = trunk_tokens >= next_tokens
        else:
            due = (progress.step - stage_step) % config.validate_every == 0
        if not (due or last):
            continue
        if not math.isfinite((loss + norm).item()):
            progress.stop, found["diverged"] = "diverged", True
            break
        if not (final or last):
            correct, scored = counts.tolist()
            counts.zero_()
            if correct >= ADVANCE * scored or progress.stage_tokens >= cell.stage_tokens:
                found["stages"].append([now.seqlen, progress.tokens, correct / max(1, scored)])
                progress.stage, progress.stage_tokens = progress.stage + 1, 0
                stage_step = progress.step
            continue
        rows = config.n_validation if on_cuda else batch_size
        rows = progress.micro_batch(config, rows, task.input_seqlen)
        with schedule.weights():
            accuracy = evaluate(model, validation, rows, device, config.dtype).accuracy
        branching = schedule.branching
        validations.append((progress.tokens, round(accuracy, 5), int(branching)))
        progress.streak = progress.streak + 1 if accuracy >= SOLVED else 0
        if progress.streak >= 2:
            progress.stop, found["solved_tokens"] = "solved", progress.tokens
        elif last:
            progress.stop = "budget"
        if not branching:
            next_tokens = max(trunk_tokens + cell.validate_tokens, int(GROWTH * trunk_tokens))
        if branching or not progress.streak:
            progress.step = schedule.validated(progress.step, progress.tokens, accuracy)
            if branching and not schedule.branching:
                progress.streak = 0
    return found | {
        "tokens": progress.tokens, "steps": progress.step, "aside_tokens": schedule.aside_tokens,
        "validations": validations, "warnings": warnings,
    }  # fmt: skip


def train_cell(cell: Cell, limits: Limits) -> dict[str, Any] | None:
    """Train a cell; return its line, or None if the time was over before it was done."""
    if time.time() > limits.deadline:
        return None
    began, run = time.perf_counter(), make_run(cell, limits)
    config = run.config
    kind, options, budget_tokens = make_schedule(cell.schedule, cell.budget_tokens)
    waking = wake(run.device)
    torch.manual_seed(derive(config.seed, "init"))
    model = build_model(config, tokens_built_for(config))
    with trainer_of(run, model, kind, options) as trainer:
        waking.join()
        rehearse(trainer.model, run)
        schedule = kind(trainer.model, trainer.optimizer, config.warmup_steps, **options)
        start = time.perf_counter()
        found = train(run, trainer, schedule, cell, budget_tokens, limits.deadline)
    if found is None:
        return None
    name = torch.cuda.get_device_name() if config.device_type == "cuda" else "CPU"
    end = time.perf_counter()
    return {
        "cell": asdict(cell), "operator": config.operator, "task": config.task,
        "seqlen": config.seqlen, "vocab_size": config.vocab_size,
        "operator_options": config.operator_options, "task_options": config.task_options,
        "schedule": cell.schedule, "lr": cell.lr, "seed": cell.seed, "tuning": cell.tuning,
        **found, "train_s": round(end - start, 2), "seconds": round(end - began, 2),
        "dtype": config.dtype, "device": name, "torch": torch.__version__,
    }  # fmt: skip


def attempt(cell: Cell, limits: Limits) -> tuple[Cell, dict[str, Any] | None]:
    """Train a cell; an error becomes its line, and the cell is tried again by the next call."""
    try:
        return cell, train_cell(cell, limits)
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return cell, {"cell": asdict(cell), "error": text}
