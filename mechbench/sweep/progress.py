"""Progress of a sweep: a bar for the sweep, a bar for each worker, and a line for each cell."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from typing import Any

from tqdm import tqdm

from mechbench.plan.suite import Cell
from mechbench.report.labels import called


class SweepProgress:
    """Bars where standard error is a terminal, lines everywhere; `quiet` leaves warnings only."""

    def __init__(
        self, total: int, done: Collection[str], n_workers: int, quiet: bool = False
    ) -> None:
        # By cell id: a cell that chooses a learning rate may end several times.
        self._quiet, self._done, self._total = quiet, set(done), total
        self._hidden = quiet or not sys.stderr.isatty()
        self._sweep = self._bar(0, total=total, initial=len(self._done), desc="sweep", unit="cell")
        self._workers = [self._bar(i + 1, unit="tok", unit_scale=True) for i in range(n_workers)]

    def _bar(self, position: int, **settings: Any) -> tqdm[Any]:
        return tqdm(position=position, disable=self._hidden, dynamic_ncols=True, **settings)

    def heard(self, worker: int, report: Mapping[str, Any]) -> None:
        """Show what a worker reports of the cell that it runs."""
        bar = self._workers[worker]
        if report["event"] == "warn":
            tqdm.write(f"mechbench: warning: {report['text']}", file=sys.stderr)
        elif report["event"] == "bar":
            bar.set_description(report["title"])
            bar.reset(report["total"])
            bar.update(report["initial"])
        elif report["event"] == "tokens":
            bar.update(report["tokens"])
        elif report["event"] == "row":
            row = report["row"]
            bar.set_postfix(L=row["seqlen"], loss=f"{row['loss']:.3f}")

    def finished(self, cell: Cell, data: Mapping[str, Any], total: int) -> None:
        """Count a cell, of so many that there are by now, and say how it ended."""
        self._total = self._sweep.total = total
        self._sweep.update(cell.cell_id not in self._done)
        self._done.add(cell.cell_id)
        self.say(f"[{len(self._done)}/{self._total}] {describe(cell)}: {outcome(data)}")

    def say(self, text: str) -> None:
        """Print a line."""
        if not self._quiet:
            tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        """Leave the terminal as it was."""
        for bar in (*self._workers, self._sweep):
            bar.close()


def describe(cell: Cell) -> str:
    """Return a cell as a few words: what it is, and where its files are."""
    c = cell.config
    vocab = called("vocab_size", c.task).replace("vocab_size", "V")
    return (
        f"{c.operator} on {c.task} at {c.seqlen}, {vocab} {c.vocab_size}, lr {c.lr:g}, "
        f"seed {c.seed} ({cell.cell_id})"
    )


def outcome(data: Mapping[str, Any]) -> str:
    """Return how a cell ended as a few words."""
    if data["status"] != "ok":
        return f"{data['status']}: {data['reason']}"
    seqlen = data["config"]["seqlen"]
    (accuracy,) = (e["accuracy"] for e in data["evaluations"] if e["seqlen"] == seqlen)
    return f"accuracy {accuracy:.1%} after {data['seconds']['train']:.1f} s"
