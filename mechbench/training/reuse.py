"""Whether a stored cell may be reused or carried on: would today's code give the same? No torch."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from pathlib import Path

from mechbench.catalogue.sources import UNKNOWN, edited
from mechbench.console.progress_bar import Console
from mechbench.errors import ConfigError
from mechbench.record.config import Config
from mechbench.record.results import Result, is_decided, write_json, write_json_once

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


def with_budget(stored: Result, config: Config) -> Result:
    """Return a result that answers for the budget of `config`, as a run with it would store it.

    A decided cell would have ended the same with a larger budget: only that is written into its
    files.

    Raises:
        ResultError: they cannot be written.
    """
    data = stored.data
    if not is_decided(data) or data["config"]["budget_tokens"] >= config.budget_tokens:
        return stored
    asked = {**data["config"], "budget_tokens": config.budget_tokens}
    write_json(stored.path, {**data, "config": asked})
    write_json_once(stored.path.with_name("config.json"), asked)
    return Result(stored.path, {**data, "config": asked})


def built_in_code(config: Config) -> dict[str, str]:
    """Return digests of the files of the built-in components that an operator is made of.

    No identity rests on them, as the version of the protocol stands for the package's code. But a
    run must not begin with one operator and go on with another.
    """
    from mechbench.operators.base import components_used

    used = components_used(config.operator, config.operator_options)
    modules = {e.target.partition(":")[0] for e in used if e.origin == "built-in" and e.target}
    return {name: _digest(name) for name in sorted(modules)}


@functools.cache
def _digest(module: str) -> str:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return UNKNOWN
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()
