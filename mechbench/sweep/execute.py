"""A suite planned and run: what `mechbench sweep` does, without its command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mechbench.catalogue.registry import CATALOGUES, TASKS
from mechbench.console.tracking import check_tracker
from mechbench.errors import BusyError, ConfigError, ResultError
from mechbench.plan.suite import Cell, Suite
from mechbench.record.config import Config
from mechbench.record.files import exclusive, make_folder
from mechbench.record.results import read_result
from mechbench.sweep.estimate import Known, duration, estimate_s, known_speeds
from mechbench.sweep.job import Job
from mechbench.sweep.local import LocalExecutor
from mechbench.sweep.plan import Plan, Schedule, make_plan, stored_results
from mechbench.sweep.progress import SweepProgress, describe
from mechbench.sweep.readings import with_validations
from mechbench.sweep.stages import stage_lines
from mechbench.training.reuse import must_be_known, with_budget

if TYPE_CHECKING:
    from mechbench.sweep.process import Template
    from mechbench.sweep.ray_cluster import RayExecutor


_BEGIN_S = 2.0  # that a worker takes to begin with a kind of cells on a GPU


@dataclass(frozen=True)
class Outlook:
    """A suite's cells, where they stand, and what is known of speeds."""

    cells: Sequence[Cell]
    plan: Plan
    schedule: Schedule
    known: Known
    trained: Mapping[str, int] = field(default_factory=dict)  # tokens of stored results, by cell id

    @property
    def left(self) -> list[Config]:
        """What remains to be run at most: no rate is dropped."""
        todo = [cell for cell in self.plan.todo if not cell.config.tunes]
        ids = {cell.cell_id for cell in self.plan.open}
        last = [c for c in self.plan.todo if c.config.tunes and c.cell_id not in ids]
        return [cell.config for cell in (*todo, *last, *self.plan.open, *self.plan.waiting)]

    def text(self, name: str, n_workers: int) -> str:
        """Return the plan for people: counts, failures, and the estimated cost."""
        plan = self.plan
        lines = [f"{name}: {plan.total} cells"]
        lines.append(f"  done     {len(plan.done):>6}")
        lines.append(f"  failed   {len(plan.failed):>6}" + _hint(plan.failed, "--retry-failed"))
        lines.append(f"  to do    {len(plan.todo):>6}")
        if plan.waiting:
            lines.append(f"  waiting  {len(plan.waiting):>6}  (for the choice of a learning rate)")
        lines += [f"  failed: {describe(cell)}: {reason}" for cell, reason in plan.failed]
        if (most := max(len(cell.budgets) for cell in self.cells)) > 1 and self.left:
            times = max(cell.most_tokens / cell.config.budget_tokens for cell in self.cells)
            lines.append(
                f"  reported cells have the budget at first; those not flat then go on, up to "
                f"{times:g} times that in {most - 1} steps, which no figure here counts"
            )
        if plan.open:
            lines += stage_lines(self.cells, lambda config: estimate_s(config, self.known)[0])
        estimates = [
            estimate_s(config, self.known, self.trained.get(config.cell_id, 0))
            for config in self.left
        ]
        if estimates:
            total, measured = sum(s for s, _ in estimates), sum(m for _, m in estimates)
            wall = max(total / n_workers, *(s for s, _ in estimates))
            lines.append(
                f"estimated cost: at most {duration(total)}, {duration(wall)} with {n_workers} "
                f"worker{'s' if n_workers > 1 else ''} ({measured} of {len(estimates)} cells by "
                "measured speeds, the others guessed; training ends once solved)"
            )
        return "\n".join(lines)


def look(
    suite: Suite,
    out: Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    retry_failed: bool = False,
) -> Outlook:
    """Return where the cells of a suite stand, and what remains.

    Raises:
        ConfigError: a name, option or value of the suite that does not exist or does not fit, or
            code whose source cannot be known.
    """
    cells = suite.cells(device, dtype)
    for cell in cells:
        must_be_known(cell.config)
    results = stored_results(cells, out)
    known = known_speeds(results.values())
    trained = {cell_id: data.get("train_tokens") or 0 for cell_id, data in results.items()}
    schedule = Schedule(
        cells,
        results,
        lambda cell: estimate_s(cell.config, known, trained.get(cell.cell_id, 0))[0],
        retry_failed=retry_failed,
        begin_s=_BEGIN_S if cells and cells[0].config.device_type == "cuda" else 0.0,
        complete=lambda cell, data: with_validations(data, out / cell.cell_id),
    )
    return Outlook(cells, schedule.plan, schedule, known, trained)


def worker_devices(device: str, jobs: int | None, jobs_per_device: int) -> list[str]:
    """Return the device of each worker: `jobs_per_device` a GPU, or `jobs` in all.

    Raises:
        ConfigError: `device` is not there.
    """
    from mechbench.plan.resolve import device_of

    chosen = device_of(device)
    devices = [chosen]
    if chosen == "cuda":
        import torch

        devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    count = jobs or len(devices) * jobs_per_device
    if count > len(devices) * jobs_per_device and chosen != "cpu":
        raise ConfigError(
            f"{count} jobs on {len(devices)} device(s): more than --jobs-per-device "
            f"({jobs_per_device}) allows"
        )
    return [devices[i % len(devices)] for i in range(count)]


@dataclass(frozen=True)
class RayCluster:
    """A cluster to run on: its address (None starts one here), and how cells share GPUs."""

    address: str | None
    jobs_per_device: int = 1


def run_sweep(
    outlook: Outlook, suite: Suite, out: Path, devices: Sequence[str], *, checkpoint_s: float,
    log: str = "none", quiet: bool = False, ray: RayCluster | None = None,
    template: Template | None = None, lanes: int = 1,
) -> tuple[Plan, int | None]:  # fmt: skip
    """Run what remains; return where the cells stand then, and the signal that ended it early.

    Args:
        outlook: from `look`.
        suite: the suite of the outlook.
        out: folder of results.
        devices: one a worker process, from `worker_devices`.
        checkpoint_s: seconds between checkpoints.
        log: tracker, see `mechbench.console.tracking`.
        quiet: warnings only.
        ray: run on this cluster in place of worker processes.
        template: that workers are copied from, from `mechbench.sweep.process.template`.
        lanes: cells at once in each worker process, see `mechbench.training.lane`.

    Raises:
        ConfigError: `out` cannot be written, the tracker or Ray is not there, or an operator, task
            or filter is of a script, which workers cannot load.
        ResultError: a result cannot be stored, or a worker cannot start.
    """
    from mechbench.operators.base import components_used

    check_tracker(log)
    for cell in outlook.cells:
        operator, options = cell.config.operator, cell.config.operator_options
        for entry in (*components_used(operator, options), TASKS.entry(cell.config.task)):
            CATALOGUES[entry.kind].must_have_file(entry.name)
    make_folder(out)
    plan = outlook.plan
    for cell in plan.done:
        _answer(cell, out)
    finished = {cell.cell_id for cell in (*plan.done, *(cell for cell, _ in plan.failed))}
    workers = [device for device in devices for _ in range(lanes)]
    workers = workers[: max(1, len(plan.todo) + len(plan.waiting))]
    progress = SweepProgress(plan.total, finished, len(workers), quiet)
    try:
        job = Job(out, suite.plugins, checkpoint_s, log)
        executor: LocalExecutor | RayExecutor
        if ray is None:
            executor = LocalExecutor(workers, job, progress, template, lanes)
        else:
            from mechbench.sweep.ray_cluster import RayExecutor

            executor = RayExecutor(
                ray.address, devices[0], len(devices), ray.jobs_per_device, job, progress
            )
        signal_number = executor.run(outlook.schedule)
    finally:
        progress.close()
    return make_plan(outlook.cells, stored_results(outlook.cells, out)), signal_number


def _answer(cell: Cell, out: Path) -> None:
    """Let a cell that was decided with a smaller budget say that it answers for the suite's too."""
    path = out / cell.cell_id / "result.json"
    with suppress(BusyError, ResultError), exclusive(path.parent):
        with_budget(read_result(path, cell.cell_id), cell.config)


def _hint(cells: Sequence[object], flag: str) -> str:
    return f"  ({flag} tries them again)" if cells else ""
