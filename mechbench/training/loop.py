"""The training loop: plain functions over a model, a task and a configuration."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mechbench.data.examples import SHARES, TrainExamples
from mechbench.data.streams import TrainStream, Unseen
from mechbench.data.train_set import TrainSet
from mechbench.ops import cross_entropy
from mechbench.plan.curriculum import ADVANCE, most_tokens, stage_lr, stage_task
from mechbench.record.config import Config
from mechbench.record.outcome import MARK
from mechbench.tasks.base import IGNORE, Batch
from mechbench.training.draws import seed_step
from mechbench.training.evaluation import Score, autocast, count_right
from mechbench.training.evaluation import counts as score_counts
from mechbench.training.memory import first_micro_batch, is_out_of_memory
from mechbench.training.run import Run
from mechbench.training.schedules import Constant
from mechbench.training.step import Graphs, Stepper

SOLVED = MARK  # validation accuracy, twice in a row


@dataclass
class Progress:
    """The progress of a run, apart from its weights, in JSON types that a checkpoint can hold.

    Nothing in it depends on the budget but `stop`: "budget" says that no further step fits into the
    budget that was asked for, and a larger one goes on as if it had never been said.
    """

    step: int = 0  # steps done, without those that a schedule has undone
    tokens: int = 0  # training tokens seen, those of undone steps included
    stage: int = 0  # of the curriculum
    stage_tokens: int = 0  # tokens seen in this stage
    halvings: int = 0  # of the micro-batch, each after an out-of-memory error
    streak: int = 0  # validations in a row at or above SOLVED
    stop: str = ""  # why training ended; empty while it has not
    causal: bool = True  # what the check before training found
    excluded: int = 0  # training examples dropped for standing in an evaluation set
    train_s: float = 0.0  # seconds of training steps
    pending: list[int] = field(default_factory=lambda: [0, 0, 0])  # counts since the last row
    metrics: list[dict[str, Any]] = field(default_factory=list)  # rows, on fixed steps only

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary."""
        return dataclasses.asdict(self)

    def micro_batch(self, config: Config, batch_size: int, input_seqlen: int) -> int:
        """Return the sequences to put through the model at once."""
        first = first_micro_batch(
            batch_size, input_seqlen, config.d_model, config.n_layers, config.device_type
        )
        return max(1, first >> self.halvings)


@dataclass
class Hooks:
    """What the loop tells its caller; the loop itself writes nothing."""

    interrupted: Callable[[], bool] = lambda: False  # asked before every step
    checkpoint_due: Callable[[], bool] = lambda: False  # asked between steps
    checkpoint: Callable[[], None] = lambda: None  # save weights and progress now
    report: Callable[[dict[str, Any]], None] = lambda row: None  # a row of metrics
    advanced: Callable[[int], None] = lambda tokens: None  # after every step
    warn: Callable[[str], None] = lambda text: None


def loss_and_counts(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed loss and (2,) int64 counts of right and scored positions.

    Cross-entropy of tokens, squared error of numbers.

    Args:
        logits: (B, L, V), or (B, L, 1) where targets are numbers.
        targets: (B, L), -100 where not scored.
    """
    if targets.is_floating_point():
        error = torch.where(targets == IGNORE, 0.0, logits[..., 0].float() - targets)
        return error.square().sum(), count_right(logits.detach(), targets)
    return cross_entropy(logits.flatten(0, 1), targets.flatten(), IGNORE)


def backward(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    micro_batch: int,
    device: str,
    dtype: str,
    n_scored: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Accumulate the gradient of the mean loss over all scored positions of the batch.

    Of two sets of targets, those that are determined and those that are scored, each mean has its
    share. The division by the whole batch's counts makes the gradient independent of `micro_batch`.

    Args:
        model: maps (B, L) or (B, L, d) to (B, L, V).
        inputs: (B, L) or (B, L, d).
        targets: (B, L), or (B, 2, L) as `mechbench.data.examples` gives them.
        micro_batch: sequences at once.
        device: of the model.
        dtype: of the forward pass.
        n_scored: as `scored`, of the whole batch where the inputs are a part of it.

    Returns:
        The loss and (2,) int64 counts of right and scored positions of the first set.
    """
    if n_scored is None:
        n_scored = scored(targets)
    loss = torch.zeros((), device=inputs.device)
    counts = torch.zeros(2, dtype=torch.int64, device=inputs.device)
    pieces = (torch.split(t, micro_batch) for t in (inputs, targets))
    for x, y in zip(*pieces, strict=True):
        with autocast(device, dtype):
            logits = model(x)
        sets, shares = ((y,), (1.0,)) if y.dim() == 2 else (y.unbind(1), SHARES)
        total, right = loss_and_counts(logits, sets[0])
        part = shares[0] * (total / n_scored[0])
        for one, n, share in zip(sets[1:], n_scored[1:], shares[1:], strict=True):
            part = part + share * (loss_and_counts(logits, one)[0] / n)
        part.backward()  # type: ignore[no-untyped-call]
        loss += part.detach()
        counts += right
    return loss, counts


def scored(targets: Tensor) -> Tensor:
    """Return (1,) or (2,): how many positions each set of targets scores, at least 1."""
    sets = targets if targets.dim() == 3 else targets[:, None]
    return (sets != IGNORE).sum((0, 2)).clamp_min(1)


def step_gradients(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    run: Run,
    progress: Progress,
    warn: Callable[[str], None],
) -> tuple[Tensor, Tensor]:
    """Run `backward`, halving the micro-batch and starting the step over when memory runs out.

    Of several processes each takes its own rows of the batch; gradients and sums are then added.

    Raises:
        torch.OutOfMemoryError: a single sequence does not fit, or the batch does not beside other
            cells in the same process: alone it may, and be summed as always.
    """
    config, device, group = run.config, run.device, run.group
    n_scored = scored(targets)
    inputs, targets = group.share(inputs), group.share(targets)
    while True:
        micro_batch = progress.micro_batch(config, *inputs.shape[:2])
        model.zero_grad(set_to_none=True)
        try:
            sums = backward(model, inputs, targets, micro_batch, device, config.dtype, n_scored)
            break
        except Exception as error:
            if not is_out_of_memory(error) or micro_batch == 1 or run.lane.crowded:
                raise
        # Outside the handler, as the exception's frames hold the tensors that must be freed.
        progress.halvings += 1
        warn(f"out of memory: micro-batch {micro_batch} halved, step repeated")
        if device.startswith("cuda"):
            torch.cuda.empty_cache()
    group.add_([*sums, *(p.grad for p in model.parameters() if p.grad is not None)])
    return sums


def train(
    run: Run,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Constant,
    progress: Progress,
    validation: list[Batch],
    unseen: Unseen,
    hooks: Hooks,
    *,
    eager: bool = False,
    graphs: Graphs | None = None,
) -> None:
    """Train until solved, diverged, out of budget or interrupted; `progress` says which.

    Every batch, and whatever an operator draws, is a function of (seed, stage, step), and
    validation and the curriculum's stages fall on steps that know no budget. So a run resumed from
    a checkpoint goes on as if nothing had happened, and so does one whose budget has grown: the
    budget decides before which step training stops, and nothing else.
    """
    config, task, device, group = run.config, run.task, run.device, run.group
    tasks = [stage_task(task, length) for length, _ in config.curriculum]
    examples = [
        TrainExamples(
            TrainSet(task_, config.n_train, batch_size, config.seed, device)
            if config.n_train
            else TrainStream(task_, batch_size, config.seed, device),
            loss_on=config.loss_on,
            # Shorter examples cannot stand in an evaluation set.
            unseen=unseen if task_ is tasks[-1] else None,
        )
        for task_, (_, batch_size) in zip(tasks, config.curriculum, strict=True)
    ]
    on_cuda = device.startswith("cuda")
    # Right and scored positions, excluded examples since the last row of metrics.
    counts = torch.tensor(progress.pending, device=device)
    row_tokens, row_time = progress.tokens, time.perf_counter()
    mark = row_time

    def save() -> None:
        nonlocal mark
        progress.pending = counts.tolist()
        mark, elapsed = time.perf_counter(), time.perf_counter() - mark
        progress.train_s += elapsed
        hooks.checkpoint()

    stepper = Stepper(
        model,
        optimizer,
        lambda inputs, targets: step_gradients(model, inputs, targets, run, progress, hooks.warn),
        config.grad_clip,
        capture=on_cuda and not eager and group.size == 1,
        warn=hooks.warn,
        graphs=graphs,
        alone=run.lane.alone,
    )
    if progress.stop == "budget":
        progress.stop = ""
    model.train()
    while not progress.stop:
        now_task, batch_size = tasks[progress.stage], config.curriculum[progress.stage][1]
        step_tokens = batch_size * now_task.input_seqlen
        if progress.tokens + step_tokens > config.budget_tokens:
            progress.stop = "budget"
            break
        if group.any(hooks.interrupted()):
            save()
            return
        if hooks.checkpoint_due():
            save()
        final = progress.stage == len(tasks) - 1
        inputs, targets, held_out = examples[progress.stage].at(progress.step)
        if held_out is not None:
            counts[2] += held_out.sum()
        factor = schedule.factor(progress.step, progress.tokens)
        factor *= stage_lr(config.curriculum, progress.stage)
        seed_step(config.seed, progress.step, device, group.rank)
        micro_batch = progress.micro_batch(config, *inputs.shape[:2])
        replayed = stepper.replay(inputs, targets, factor, micro_batch)
        loss, right, norm = replayed or stepper.gradients(inputs, targets)
        done, spent = progress.step + 1, progress.tokens + step_tokens
        due = schedule.due(spent) if schedule.branching else done % config.validate_every == 0
        if due:
            run.lane.wait(device)
        # On CUDA they are fetched on fixed steps only: reading them stalls the queue.
        if (due or not on_cuda) and not math.isfinite((loss + norm).item()):
            progress.stop = "diverged"
            break
        counts[:2] += right
        if not replayed:
            stepper.update(factor)
        schedule.updated(done)
        progress.step, progress.tokens = done, spent
        progress.stage_tokens += step_tokens
        hooks.advanced(step_tokens)
        mark, elapsed = time.perf_counter(), time.perf_counter() - mark
        progress.train_s += elapsed  # after every step: it may be the last before an error
        if not due:
            continue
        run.lane.wait(device)
        now = time.perf_counter()
        progress.train_s += now - mark
        correct, scored, excluded = counts.tolist()
        progress.excluded += excluded
        train_accuracy = correct / max(1, scored)
        row = {
            "step": done,
            "tokens": spent,
            "seqlen": now_task.seqlen,
            "loss": loss.item(),
            "train_accuracy": train_accuracy,
            "validation_accuracy": None,
            "validation_dense_accuracy": None,
            "tokens_per_s": (spent - row_tokens) / (now - row_time),
            "train_s": progress.train_s,
            "branch": int(schedule.branching),
        }
        if final:
            score = validate(run, model, schedule, progress, validation)
            row["validation_accuracy"] = score.accuracy
            row["validation_dense_accuracy"] = score.dense_accuracy
            _note(progress, schedule, score.accuracy)
        elif train_accuracy >= ADVANCE or progress.stage_tokens >= most_tokens(step_tokens):
            progress.stage, progress.stage_tokens = progress.stage + 1, 0
        progress.metrics.append(row)
        hooks.report(row)
        counts.zero_()
        mark = row_time = time.perf_counter()
        row_tokens = spent
    run.lane.wait(device)
    save()


def validate(
    run: Run, model: nn.Module, schedule: Constant, progress: Progress, validation: list[Batch]
) -> Score:
    """Score the weights that the schedule evaluates; changes neither model nor progress."""
    config, device = run.config, run.device
    # A CPU is no faster with more rows at once, a GPU is.
    rows = config.n_validation if device.startswith("cuda") else config.curriculum[-1][1]
    micro_batch = progress.micro_batch(config, rows, run.task.input_seqlen)
    with schedule.weights():
        found = score_counts(model, validation, micro_batch, device, config.dtype)
    run.lane.wait(device)
    return Score(*run.group.total(tuple(found.tolist())))


def _note(progress: Progress, schedule: Constant, accuracy: float) -> None:
    """Note a validation on a fixed step: solved with the second good one in a row."""
    progress.streak = progress.streak + 1 if accuracy >= SOLVED else 0
    if progress.streak >= 2:
        progress.stop = "solved"
        return
    branching = schedule.branching
    if branching or not progress.streak:  # no branch begins between two good validations
        progress.step = schedule.validated(progress.step, progress.tokens, accuracy)
    if branching and not schedule.branching:
        progress.streak = 0  # that was the branch's
