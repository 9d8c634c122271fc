"""Metrics for trackers, besides metrics.csv: `--log csv|tensorboard|wandb`."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mechbench.console.progress_bar import Bar, Console
from mechbench.errors import ConfigError

TRACKERS = ("none", "csv", "tensorboard", "wandb")
Row = dict[str, Any]


class _TrackedBar(Bar):
    """A bar whose rows go to a tracker too."""

    def __init__(self, bar: Bar, track: Callable[[Row], None]) -> None:
        self._inner, self._track = bar, track

    def advance(self, tokens: int) -> None:
        self._inner.advance(tokens)

    def row(self, row: Row) -> None:
        self._inner.row(row)
        self._track(row)


class TrackedConsole(Console):
    """A console that also passes every row of metrics to a tracker.

    Args:
        console: where messages and bars go.
        tracker: one of TRACKERS.
        folder: where the tracker's files go: `log.csv` or `tensorboard/`, or wandb's own.
        name: of the run in the tracker.

    Raises:
        ConfigError: an unknown tracker, or its package is not installed.
    """

    def __init__(self, console: Console, tracker: str, folder: Path, name: str) -> None:
        super().__init__(console.quiet)
        check_tracker(tracker)
        self._console, self._tracker, self._folder, self._name = console, tracker, folder, name

    def say(self, text: str) -> None:
        """Print a line of progress."""
        self._console.say(text)

    def warn(self, text: str) -> None:
        """Print a warning."""
        self._console.warn(text)

    @contextlib.contextmanager
    def bar(self, total: int, initial: int, title: str) -> Iterator[Bar]:
        """Show a bar, and keep the tracker open, while the context lasts."""
        with (
            _OPEN[self._tracker](self._folder, self._name) as track,
            self._console.bar(total, initial, title) as bar,
        ):
            yield _TrackedBar(bar, track)


def check_tracker(tracker: str) -> None:
    """Make sure that a tracker can be used.

    Raises:
        ConfigError: an unknown one, or its package is not installed.
    """
    if tracker not in TRACKERS:
        raise ConfigError(f"unknown tracker {tracker!r}: choose from {', '.join(TRACKERS)}")
    if tracker in ("tensorboard", "wandb") and importlib.util.find_spec(tracker) is None:
        raise ConfigError(f"no {tracker} here: pip install 'mechbench[{tracker}]'")


@contextlib.contextmanager
def _no_tracker(folder: Path, name: str) -> Iterator[Callable[[Row], None]]:
    yield lambda row: None


@contextlib.contextmanager
def _csv(folder: Path, name: str) -> Iterator[Callable[[Row], None]]:
    """Append to log.csv, which many runs may share."""
    path = folder / "log.csv"
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:

        def track(row: Row) -> None:
            writer = csv.DictWriter(file, ["run", *row], lineterminator="\n")
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow({"run": name, **row})
            file.flush()

        yield track


@contextlib.contextmanager
def _tensorboard(folder: Path, name: str) -> Iterator[Callable[[Row], None]]:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / "tensorboard" / name)) as writer:

        def track(row: Row) -> None:
            for key, value in row.items():
                if value is not None and key != "step":
                    writer.add_scalar(key, value, row["step"])

        yield track


@contextlib.contextmanager
def _wandb(folder: Path, name: str) -> Iterator[Callable[[Row], None]]:
    import wandb

    run = wandb.init(project="mechbench", name=name, id=name, resume="allow", dir=str(folder))
    try:
        yield lambda row: run.log(dict(row), step=row["step"])
    finally:
        run.finish()


_OPEN = {"none": _no_tracker, "csv": _csv, "tensorboard": _tensorboard, "wandb": _wandb}
