"""Cells on a Ray cluster: as many at once as it has room for, results gathered on this machine.

A cell runs in a folder of its own on whatever node has room, with the files that it has here if it
is carried on; its files are handed over when it ends, so a lost node loses the cell's progress and
nothing else. Comes with the extra
`mechbench[ray]`; mechbench must be installed on every node.
"""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import IO, Any

from mechbench.console.progress_bar import Console
from mechbench.console.signals import Stopper
from mechbench.errors import ConfigError, ResultError
from mechbench.plan.suite import Cell
from mechbench.record.files import make_folder, write_atomic
from mechbench.sweep.failure import store_failure
from mechbench.sweep.job import ATTEMPTS, Job
from mechbench.sweep.plan import Schedule
from mechbench.sweep.progress import SweepProgress, describe
from mechbench.sweep.worker import run_order

# In this order: the result makes it done.
_FILES = ("config.json", "metrics.csv", "checkpoint.pt", "result.json")


def run_elsewhere(
    order: dict[str, Any], files: dict[str, bytes]
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Run a cell in a temporary folder, from these files on; return the report and its files."""
    with tempfile.TemporaryDirectory(prefix="mechbench-") as scratch:
        folder = Path(scratch) / order["cell_id"]
        put_files(folder, files)
        report = run_order({**order, "out": scratch}, Console(quiet=True))
        return report, files_of(folder)


def files_of(folder: Path) -> dict[str, bytes]:
    """Return what a cell's folder holds of what a run goes on from."""
    return {name: (folder / name).read_bytes() for name in _FILES if (folder / name).is_file()}


def put_files(folder: Path, files: dict[str, bytes]) -> None:
    """Write a cell's files, the result last.

    Raises:
        ConfigError: the folder cannot be written.
        ResultError: a file cannot be.
    """
    make_folder(folder)
    for name in _FILES:
        if name in files:
            write_atomic(folder / name, partial(_write, files[name]))


def _write(data: bytes, file: IO[bytes]) -> None:
    file.write(data)


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
                        files = files_of(self._job.out / cell.cell_id)
                        self._pending[self._run_elsewhere.remote(order, files)] = cell
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
        put_files(self._job.out / cell.cell_id, files)
        self._record(cell, report["result"], schedule)

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
        self._progress.finished(cell, data, schedule.total)
