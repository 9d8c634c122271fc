"""The errors a user can cause. The command line prints each as one line and exits with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MechbenchError(Exception):
    """Base of every error that mechbench raises on purpose; its text is one line."""

    def __str__(self) -> str:
        """Return the text, also of a name with line breaks, as one line."""
        return " ".join(super().__str__().splitlines())


class ConfigError(MechbenchError):
    """A setting is unknown, of the wrong type or out of range."""


class SeqlenError(ConfigError):
    """A sequence length is impossible for a task, or longer than an operator was built for."""


class PluginError(MechbenchError):
    """A plugin file cannot be read, raises on import, or registers nothing."""


class OperatorError(MechbenchError):
    """An operator broke its contract: it raised, or gave a wrong shape, NaN or a look-ahead."""


class ResultError(MechbenchError):
    """A stored result or checkpoint is corrupt, foreign or in use by another process."""


class BusyError(ResultError):
    """A run's folder is in use by another process; it may be free later."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Say which choices there are, the closest first: the tail of an error about `name`."""
    names = sorted(choices)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}choose from: {', '.join(names) or '(none)'}"
