"""Cells on a Ray cluster: as many at once as it has room for, results gathered on this machine.

A cell runs in a folder of its own on whatever node has room; its files are handed over when it
ends, so a lost node loses the cell's progress and nothing else. Comes with the extra
`mechbench[ray]`; mechbench must be installed on every node.
"""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from mechbench.console.progress_bar import Console
from mechbench.console.signals import Stopper
from mechbench.errors import ConfigError, ResultError
from mechbench.plan.suite import Cell
from mechbench.record.files import make_folder, write_text
from mechbench.record.results import read_result
from mechbench.sweep.failure import store_failure
from mechbench.sweep.job import ATTEMPTS, Job
from mechbench.sweep.plan import Schedule
from mechbench.sweep.progress import SweepProgress, describe
from mechbench.sweep.worker import run_order

_FILES = ("config.json", "metrics.csv", "result.json")  # in this order: the result makes it done


def run_elsewhere(order: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Run a cell in a temporary folder; return the report and the files that it left."""
    with tempfile.TemporaryDirectory(prefix="mechbench-") as scratch:
        report = run_order({**order, "out": scratch}, Console(quiet=True))
        folder = Path(scratch) / order["cell_id"]
        files = {
            name: (folder / name).read_text(encoding="utf-8")
            for name in _FILES
            if (folder / name).exists()
        }
    return report, files


class RayExecutor:
    """Runs a schedule on a cluster.

    Args:
        address: of the cluster; None starts one on this machine.
        device: "cpu" or "cuda": what a cell asks the cluster for.
        n_jobs: most cells at once; those without room wait in Ray's queue.
        jobs_per_device: cells that share one GPU.
        job: what the orders have in common.
        progress: told of every cell that ends.

    Raises:
        ConfigError: Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(
        self,
        address: str | None,
        device: str,
        n_jobs: int,
        jobs_per_device: int,
        job: Job,
        progress: SweepProgress,
    ) -> None:
        if importlib.util.find_spec("ray") is None:
            raise ConfigError("no ray here: pip install 'mechbench[ray]'")
        import ray

        try:
            ray.init(
                address, ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            text = " ".join(str(error).split())
            raise ConfigError(f"no Ray cluster at {address!r}: {text}") from error
        self._device = device.partition(":")[0]
        gpus = 1.0 / jobs_per_device if self._device == "cuda" else 0.0
        # Retries are counted here, so that a cell that kills its worker is known by name.
        remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)
        self._run_elsewhere = remote(run_elsewhere)
        self._n_jobs, self._job, self._progress = n_jobs, job, progress
        self._deaths: Counter[str] = Counter()
        self._pending: dict[Any, Cell] = {}

    def run(self, schedule: Schedule) -> int | None:
        """Run until nothing is left; return the number of the signal that ended it early.

        Raises:
            ResultError: a result cannot be stored, or a node resolves other settings.
        """
        import ray

        try:
            with Stopper() as stopper:
                while stopper.received is None and (len(schedule) or self._pending):
                    while len(self._pending) < self._n_jobs and (cell := schedule.take()):
                        order = self._job.order(cell, self._device)
                        self._pending[self._run_elsewhere.remote(order)] = cell
                    for ended in ray.wait(list(self._pending), timeout=0.5)[0]:
                        self._hear(ended, self._pending.pop(ended), schedule)
                return stopper.received
        finally:
            for reference in self._pending:
                ray.cancel(reference, force=True)
            ray.shutdown()

    def _hear(self, ended: Any, cell: Cell, schedule: Schedule) -> None:
        import ray

        try:
            report, files = ray.get(ended)
        except ray.exceptions.RayError as error:
            self._lost(cell, type(error).__name__, schedule)
            return
        if report["event"] == "refused":
            self._fail(cell, str(report["reason"]), schedule)
            return
        if report["event"] != "done":
            raise ResultError(str(report["reason"]))
        folder = self._job.out / cell.cell_id
        make_folder(folder)
        for name in _FILES:
            if name in files:
                write_text(folder / name, files[name])
        self._record(cell, read_result(folder / "result.json").data, schedule)

    def _lost(self, cell: Cell, how: str, schedule: Schedule) -> None:
        """Try a cell again after its worker or node was lost; store a failure if that repeats."""
        self._deaths[cell.cell_id] += 1
        self._progress.say(f"worker lost ({how}) at {describe(cell)}")
        if self._deaths[cell.cell_id] < ATTEMPTS:
            schedule.again(cell)
            return
        text = f"the worker process died ({how}), {ATTEMPTS} times of {ATTEMPTS}"
        self._fail(cell, text, schedule)

    def _fail(self, cell: Cell, reason: str, schedule: Schedule) -> None:
        """Store that a cell failed; the other cells go on."""
        stored = store_failure(cell.config, cell.config.device_type, self._job.out, reason)
        self._record(cell, stored.data, schedule)

    def _record(self, cell: Cell, data: dict[str, Any], schedule: Schedule) -> None:
        schedule.finished(cell, data)
        self._progress.finished(cell, data)
