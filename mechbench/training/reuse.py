"""Whether a stored cell may be reused: would today's code give the same? No torch."""

from __future__ import annotations

from pathlib import Path

from mechbench.catalogue.sources import UNKNOWN, edited
from mechbench.console.progress_bar import Console
from mechbench.errors import ConfigError
from mechbench.record.config import Config

_STORED = ("result.json", "checkpoint.pt")


def must_be_known(config: Config) -> None:
    """Refuse to plan a sweep of code whose stored results could not be recognised.

    Raises:
        ConfigError: the source of some code is unknown.
    """
    if unknown := _unknown(config):
        raise ConfigError(
            f"the source of {unknown} is unknown, so a sweep cannot tell its results from "
            "older ones: put the code into files that are imported by name, and do not edit or "
            "change them while they are in use"
        )


def _unknown(config: Config) -> str:
    return ", ".join(name for name, digest in config.sources.items() if digest == UNKNOWN)


def may_resume(config: Config, folder: Path, console: Console) -> bool:
    """Return whether what is stored in `folder` surely comes from the code that would run now.

    Warns, whatever the console: of a stored result that is not used, and of a file that was edited
    after it was imported, as this process goes on with the code that it has.
    """
    for name in edited(config.sources):
        console.warn(
            f"{name} was edited after it was imported: it runs as it was; restart Python "
            "to run it as it is now"
        )
    unknown = _unknown(config)
    if not unknown:
        return True
    if any((folder / name).exists() for name in _STORED):
        console.warn(
            f"the source of {unknown} is unknown, so what is stored in {folder} "
            "is not used, and the cell runs again"
        )
    return False
