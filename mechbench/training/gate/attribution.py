"""Whether an error is the operator's: it is if it arose in its code, its call or its gradient.

The one way in which an operator is named, whatever builds or calls it. What counts is where the
traceback passes, not what the error says:

- the file that registered the operator: its line is told, or that of the plugin file from which a
  built-in operator has a part;
- a call of the operator inside the model, whatever raised below it: `Block.forward` calls it, and
  a later frame belongs to it;
- autograd's backward pass: all that stands in the graph beside the operator is the harness's own
  and is the same for every operator, so a tensor changed in place or of a foreign dtype is its.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator
from types import FrameType, TracebackType

from torch import autograd, nn

from mechbench.catalogue.registry import OPERATORS, plugin_of
from mechbench.errors import MechbenchError, OperatorError
from mechbench.training.memory import is_out_of_memory


def blame(operator: str, error: BaseException, *modules: nn.Module) -> OperatorError | None:
    """Return the error that names `operator`, or None where it is not the operator's.

    Args:
        operator: name.
        error: with its traceback.
        modules: operators that are called without a model around them.
    """
    if isinstance(error, MechbenchError) or is_out_of_memory(error):
        return None
    if not isinstance(error, Exception | SystemExit):
        return None
    where = _where(operator, error.__traceback__, modules)
    if where is None:
        return None
    text = " ".join(str(error).split())
    return OperatorError(f"operator {operator!r} raised {type(error).__name__} {where}: {text}")


@contextlib.contextmanager
def naming(operator: str, *modules: nn.Module) -> Iterator[None]:
    """Turn what an operator raises into an error with its name; other errors pass as they are.

    Args:
        operator: name.
        modules: operators that are called without a model around them.

    Raises:
        OperatorError: the error is the operator's, a call of sys.exit among them.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        named = blame(operator, error, *modules)
        if named is None:
            raise
        raise named from error


def _where(
    operator: str, trace: TracebackType | None, modules: tuple[nn.Module, ...]
) -> str | None:
    entry = OPERATORS.entry(operator)
    file = getattr(sys.modules.get(entry.target.partition(":")[0]), "__file__", None)
    lines = [f.lineno for f in traceback.extract_tb(trace) if file and f.filename == file]
    frames = [frame for frame, _ in traceback.walk_tb(trace)]
    called = _in_call(frames, modules)
    if entry.origin == "built-in" and (lines or called):
        # A filter of a plugin, say, that the operator is made of.
        for frame, line in reversed(list(traceback.walk_tb(trace))):
            if path := plugin_of(frame.f_globals.get("__name__", "")):
                return f"at line {line} of {path}"
    if lines:
        return f"at line {lines[-1]} of its file"
    if called:
        return "in its forward pass"
    if any(frame.f_code.co_filename == autograd.__file__ for frame in frames):
        return "in its backward pass"
    return None


def _in_call(frames: list[FrameType], modules: tuple[nn.Module, ...]) -> bool:
    """Return whether a frame is of one of `modules`, or of a frame before it the operator."""
    operators = {id(module) for module in modules}
    for frame in frames:
        owner = frame.f_locals.get("self")
        if not isinstance(owner, nn.Module):
            continue
        if id(owner) in operators:
            return True
        inner = owner._modules.get("operator")
        if inner is not None:
            operators.add(id(inner))
    return False
