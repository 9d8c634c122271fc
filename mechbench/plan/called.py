"""What Python callers may give in place of the name of a task. No torch."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from mechbench.catalogue.registry import TASKS
from mechbench.errors import ConfigError
from mechbench.plan.resolve import task_options_of


def task_called(task: Any, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name of a task, and its sizes and options: those given, or a task object's own.

    Args:
        task: a name, a class or factory, or a task object.
        given: `seqlen`, `vocab_size` and `task_options`; None where not given.

    Raises:
        ConfigError: a task object, and its sizes or options besides.
        PluginError: as `Registry.named`.
    """
    if isinstance(task, str) or inspect.isroutine(task) or isinstance(task, type):
        return TASKS.named(task), dict(given)
    for name, value in given.items():
        if value is not None:
            raise ConfigError(f"{name} is given beside a task object, which has its own: leave it")
    sizes = {name: getattr(task, name, None) for name in ("seqlen", "vocab_size")}
    return TASKS.named(type(task)), {**sizes, "task_options": task_options_of(task)}
