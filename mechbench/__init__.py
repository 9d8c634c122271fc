"""mechbench: what a sequence operator can do, at which length, and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mechbench import ops
    from mechbench.catalogue.plugins import load_plugin
    from mechbench.catalogue.registry import register_filter, register_operator, register_task
    from mechbench.operators.base import make_operator, materialize, set_optim
    from mechbench.record.results import Result
    from mechbench.report.frame import load_results
    from mechbench.tasks.base import Batch, Task, make_task
    from mechbench.training.cell import run

# Loaded on first use, so that `mechbench --help` and bad arguments import no torch.
_LAZY = {
    "Batch": "mechbench.tasks.base",
    "Result": "mechbench.record.results",
    "Task": "mechbench.tasks.base",
    "load_plugin": "mechbench.catalogue.plugins",
    "load_results": "mechbench.report.frame",
    "make_operator": "mechbench.operators.base",
    "make_task": "mechbench.tasks.base",
    "materialize": "mechbench.operators.base",
    "ops": "",
    "register_filter": "mechbench.catalogue.registry",
    "register_operator": "mechbench.catalogue.registry",
    "register_task": "mechbench.catalogue.registry",
    "run": "mechbench.training.cell",
    "set_optim": "mechbench.operators.base",
}

__all__ = [
    "Batch",
    "Result",
    "Task",
    "__version__",
    "load_plugin",
    "load_results",
    "make_operator",
    "make_task",
    "materialize",
    "ops",
    "register_filter",
    "register_operator",
    "register_task",
    "run",
    "set_optim",
]


def __dir__() -> list[str]:
    """Return the public names, loaded or not."""
    return __all__


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _LAZY:
        raise AttributeError(f"module 'mechbench' has no attribute {name!r}")
    home = _LAZY[name]
    value = (
        getattr(importlib.import_module(home), name)
        if home
        else importlib.import_module(f"mechbench.{name}")
    )
    globals()[name] = value
    return value
