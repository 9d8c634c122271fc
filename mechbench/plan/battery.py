"""A suite put to other operators, or a part of its tasks. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mechbench.errors import ConfigError, nearest
from mechbench.plan.suite import Choice, Suite


def for_operators(
    suite: Suite,
    names: Sequence[str],
    options: Mapping[str, Any] | None = None,
    plugins: Sequence[str] = (),
) -> Suite:
    """Return a suite with these operators in place of its own, all with the same options."""
    chosen = tuple(
        Choice(name, ("operators", i), dict(options or {})) for i, name in enumerate(names)
    )
    return dataclasses.replace(suite, operators=chosen, plugins=(*suite.plugins, *plugins))


def of_tasks(suite: Suite, names: Sequence[str]) -> Suite:
    """Return a suite with those of its tasks that have one of these names.

    Raises:
        ConfigError: it has none of a name.
    """
    known = list(dict.fromkeys(task.name for task in suite.tasks))
    for name in names:
        if name not in known:
            raise ConfigError(f"--tasks: {suite.name} has no {name!r}: {nearest(name, known)}")
    return dataclasses.replace(suite, tasks=tuple(t for t in suite.tasks if t.name in names))


def one_of_each(suite: Suite) -> Suite:
    """Return a suite with one seed and one rate, whose cells say what its points are."""
    tasks = tuple(dataclasses.replace(task, seeds=()) for task in suite.tasks)
    operators = tuple(dataclasses.replace(operator, lrs=()) for operator in suite.operators)
    return dataclasses.replace(suite, seeds=(0,), lrs=(), tasks=tasks, operators=operators)
