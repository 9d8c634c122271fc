"""A run without its kernels, so that they are compiled side by side before the first step.

Every pass that the run is going to make is made once on a copy of the model, at its shapes and in
its precisions, on inputs of zeros. Its kernels are not launched, only noted: they are compiled by
all processors at once then, which takes a GPU's first run from half a minute of waiting to a few
seconds. What is compiled on disk for this configuration is not rehearsed again.

What the kernels would have written is whatever lay in memory, so only the package's own operators
are rehearsed: they make no choice that hangs on a value, and no index of one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from threading import Thread

import torch
from torch import Tensor, nn

from mechbench.data.streams import evaluation_sizes
from mechbench.ops.triton import has_triton, interpreted, triton_version
from mechbench.plan.curriculum import stage_task
from mechbench.record.config import canonical_json
from mechbench.tasks.base import Batch, Task
from mechbench.training.draws import callers_generators
from mechbench.training.evaluation import evaluate
from mechbench.training.kinds import is_own
from mechbench.training.lengths import for_tokens
from mechbench.training.loop import Progress, backward
from mechbench.training.named_schedules import SCHEDULES
from mechbench.training.optimiser import clip, set_lr
from mechbench.training.run import Run

_OLDEST = (3, 4)  # version of Triton that tells what it is about to compile
_PATIENCE_S = 60.0  # with other processes that compile
_PROBED = 4  # sequences that the checks before and after training look at
# What decides neither a shape nor a kernel.
_LEFT_OUT = {
    "seed", "lr", "weight_decay", "warmup_steps", "grad_clip", "budget_tokens", "n_train",
    "validate_every", "allow_noncausal",
}  # fmt: skip


def wake(device: str) -> Thread:
    """Let Triton build its driver, which takes a C compiler a second once, beside what is next."""

    def build() -> None:
        with suppress(Exception):
            from triton.runtime import driver

            _ = driver.active

    needed = device.startswith("cuda") and has_triton() and not interpreted()
    thread = Thread(target=build if needed else lambda: None, daemon=True)
    thread.start()
    return thread


def rehearse(model: nn.Module, run: Run) -> None:
    """Compile the kernels that a run needs, if it is on a GPU and they may be missing.

    Leaves the model, its gradients and all random generators as they are. Whatever goes wrong here
    is left to the run itself, which compiles what it still misses.

    Args:
        model: on its device.
        run: about to begin.
    """
    if not run.device.startswith("cuda") or not is_own(model):
        return
    if not has_triton() or interpreted() or triton_version() < _OLDEST:
        return
    with suppress(Exception):  # without a C compiler, or where no process may be started
        _compile_missing(model, run)


def _compile_missing(model: nn.Module, run: Run) -> None:
    from filelock import FileLock

    from mechbench.ops.kernels.ahead import compile_all, mark, noted, processes_for

    config = {k: v for k, v in run.config.to_dict().items() if k not in _LEFT_OUT}
    done = mark(f"{canonical_json(config)} {torch.__version__}")
    if done.exists():
        return
    with callers_generators(run.device), noted() as wanted:
        for attempt in passes(model, run):
            with suppress(Exception):  # the run will meet it, and say it
                attempt()
    processes = processes_for(len(wanted), beside=run.group.size)
    if processes:
        run.console.say(f"compiling {len(wanted)} kernels in {processes} processes")
        done.parent.mkdir(parents=True, exist_ok=True)
        # One after another: a sweep's workers want mostly the same, and find it compiled then.
        with FileLock(done.parent / "mechbench.lock", timeout=_PATIENCE_S):
            compile_all(wanted, processes)
    with suppress(OSError):
        done.touch()


def passes(model: nn.Module, run: Run) -> Iterator[Callable[[], object]]:
    """Give what the run does at each of its shapes, for a copy of `model`."""
    config, device, progress = run.config, run.device, Progress()
    try:
        double = copy.deepcopy(model)
    except Exception:
        return

    def parts(task: Task, rows: int, wanted: int | None = None) -> set[int]:
        """Return the sequences of a batch that pass at once, and those left at its end."""
        most = progress.micro_batch(config, wanted or rows, task.input_seqlen)
        return {min(most, rows), rows % most} - {0}

    def step(task: Task, rows: int, dtype: str) -> None:
        batch = _zeros(task, rows, device)
        backward(double.train(), batch.inputs, batch.targets, rows, device, dtype)

    def update() -> None:
        kind = SCHEDULES[config.schedule]
        optimizer = kind.optimizer(double, config.lr, config.weight_decay)
        clip(double, optimizer, config.grad_clip)
        set_lr(optimizer, 1.0)
        optimizer.step()

    def score(task: Task, rows: int, dtype: str) -> None:
        reader = for_tokens(double, config, task.input_seqlen, device)
        evaluate(reader, [_zeros(task, rows, device)], rows, device, dtype)

    trained = run.task
    most = max(parts(trained, config.batch_size))
    few = min(_PROBED, most)
    for length, batch_size in config.curriculum:
        task = stage_task(trained, length)
        for rows in parts(task, batch_size):
            yield partial(step, task, rows, config.dtype)
    yield update
    for rows in {1, few}:  # the checks
        yield partial(step, trained, rows, config.dtype)
    for task in run.tasks().values():
        for rows in {few, most}:
            yield partial(score, task, rows, "float32")
        scored = {
            rows
            for n in {config.n_validation, config.n_test}
            for size in evaluation_sizes(task, n)
            for rows in parts(task, size, n)
        }
        for rows in scored:
            yield partial(score, task, rows, config.dtype)


def _zeros(task: Task, rows: int, device: str) -> Batch:
    shape, d = (rows, task.input_seqlen), task.input_dim
    targets: Tensor = torch.zeros(shape, dtype=None if d else torch.int64, device=device)
    inputs = torch.zeros(*shape, d, device=device) if d else targets
    return Batch(inputs, targets, targets)
