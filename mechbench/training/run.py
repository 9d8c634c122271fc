"""One run, unchanging: what is trained, on which task, where its files go, and its console."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mechbench.console.progress_bar import Console
from mechbench.plan.resolve import scored_task
from mechbench.record.config import Config
from mechbench.tasks.base import Task
from mechbench.training.kept import Kept
from mechbench.training.lane import SOLE, Lane
from mechbench.training.parallel import ALONE, Group


@dataclass(frozen=True)
class Run:
    """A configuration being run by this process.

    Attributes:
        config: resolved.
        device: to train on, with its index.
        task: as configured, at the trained length.
        group: the processes that share its steps.
        folder: gets its files; only the leader of the group writes.
        console: where messages and the bar go.
        checkpoint_s: seconds between checkpoints.
        kept: the process's trainer, or the lane's.
        lane: the cell's place beside others in the process.
    """

    config: Config
    device: str
    task: Task
    group: Group = ALONE
    folder: Path = Path()
    console: Console = field(default_factory=lambda: Console(quiet=True))
    checkpoint_s: float = float("inf")
    kept: Kept = field(default_factory=Kept)
    lane: Lane = SOLE

    def tasks(self) -> dict[int, Task]:
        """Return the task of the test set at every length, the trained one among them."""
        return {length: scored_task(self.config, length) for length in self.config.eval_seqlens}
