"""One progress bar on standard error, or in a notebook; nothing where there is neither."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm


def in_notebook() -> bool:
    """Return whether this is a notebook's kernel, where a bar can be a widget."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


def _bar_class() -> type[tqdm[Any]]:
    """Return tqdm's bar, that of a notebook in one; loaded only there."""
    if not in_notebook():
        return tqdm
    from tqdm.auto import tqdm as widget

    return widget


class Bar:
    """A bar over training tokens with the latest loss and accuracies."""

    def __init__(self, bar: tqdm[Any]) -> None:
        self._bar = bar

    def advance(self, tokens: int) -> None:
        """Count a step's tokens."""
        self._bar.update(tokens)

    def row(self, row: dict[str, Any]) -> None:
        """Show a row of metrics."""
        validation = row["validation_accuracy"]
        self._bar.set_postfix(
            seqlen=row["seqlen"],
            loss=f"{row['loss']:.3f}",
            acc=f"{row['train_accuracy']:.3f}",
            val="-" if validation is None else f"{validation:.3f}",
        )


class Console:
    """Messages and bars; `quiet` silences all but warnings, None: where nobody would see them."""

    def __init__(self, quiet: bool | None = None) -> None:
        self.quiet = not (sys.stderr.isatty() or in_notebook()) if quiet is None else quiet

    def say(self, text: str) -> None:
        """Print a line of progress."""
        if not self.quiet:
            tqdm.write(text, file=sys.stderr)

    def warn(self, text: str) -> None:
        """Print a warning, always."""
        tqdm.write(f"mechbench: warning: {text}", file=sys.stderr)

    @contextlib.contextmanager
    def bar(self, total: int, initial: int, title: str) -> Iterator[Bar]:
        """Show a bar over `total` tokens while the context lasts."""
        with _bar_class()(
            total=total,
            initial=initial,
            desc=title,
            unit="tok",
            unit_scale=True,
            disable=self.quiet,
            dynamic_ncols=True,
        ) as bar:
            yield Bar(bar)
