"""A cell's checkpoint: the model's whole state, optimizer and progress in one file.

The whole state is more than a state dict says: buffers that it leaves out or that forward made, and
an operator's extra state, count too. Files are read without running code (`weights_only`).
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mechbench.errors import OperatorError, ResultError
from mechbench.record.files import set_aside, write_atomic
from mechbench.training.loop import Progress
from mechbench.training.memory import is_out_of_memory

_EXTRA = "_extra_state"  # how torch names what `get_extra_state` gave, after the module's name


def save_checkpoint(
    path: Path, cell_id: str, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Write the checkpoint atomically.

    Raises:
        ResultError: it cannot be written; the previous one is intact.
    """
    data = {
        "cell_id": cell_id,
        "model": model.state_dict(),
        "buffers": {
            name: buffer
            for name, buffer in _left_out(model).items()
            if getattr(buffer, "as_built", None) != _version(buffer)
        },
        "optimizer": optimizer.state_dict(),
        "progress": progress.to_dict(),
    }
    write_atomic(path, lambda file: torch.save(data, file))


def load_weights(path: Path, cell_id: str, model: nn.Module) -> None:
    """Restore the model alone and leave the file as it is, to look at a trained model.

    Raises:
        ResultError: the file is missing, corrupt or of another cell.
    """
    try:
        _restore(model, _read(path, cell_id))
    except FileNotFoundError as error:
        raise ResultError(f"{path} does not exist: the run has not stored any weights") from error
    except Exception as error:  # whatever a damaged file makes the reader raise
        if is_out_of_memory(error):
            raise
        text = " ".join(str(error).split())[:200]
        raise ResultError(f"{path} is corrupt ({type(error).__name__}: {text})") from error


def load_checkpoint(
    path: Path, cell_id: str, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[Progress | None, str | None]:
    """Restore model and optimizer; return (progress, None), or (None, warning) for a damaged file.

    A damaged file, or one of another cell, is renamed and never used; without a file both are None.
    """
    for buffer in _left_out(model).values():  # a later checkpoint keeps those that have changed
        buffer.as_built = _version(buffer)  # type: ignore[attr-defined]
    if not path.exists():
        return None, None
    try:
        data = _read(path, cell_id)
        progress = Progress(**data["progress"])
        _check_fit(model, data["model"])
        optimizer.load_state_dict(data["optimizer"])
        _restore(model, data)
    except Exception as error:  # whatever a damaged file makes the reader raise
        if is_out_of_memory(error):
            raise
        text = " ".join(str(error).split())[:200]
        return None, (
            f"{path} is corrupt ({type(error).__name__}: {text}); "
            f"set aside as {set_aside(path).name}, training starts over"
        )
    return progress, None


def check_extra_state(model: nn.Module, operator: str) -> str | None:
    """Return a warning if a checkpoint with the operator's extra state could not be read again.

    Raises:
        OperatorError: it could not even be written.
    """
    extra = {k: v for k, v in model.state_dict().items() if k.endswith(_EXTRA)}
    file = io.BytesIO()
    try:
        torch.save(extra, file)
    except Exception as error:  # whatever a foreign object makes pickle raise
        text = " ".join(str(error).split())[:200]
        raise OperatorError(
            f"operator {operator!r} has an extra state that cannot be stored "
            f"({type(error).__name__}: {text}): expected tensors, numbers, texts, lists and dicts"
        ) from error
    file.seek(0)
    try:
        torch.load(file, map_location="cpu", weights_only=True)
    except Exception:
        return (
            f"the extra state of operator {operator!r} holds objects that a checkpoint is not "
            "trusted to build: a run that is interrupted starts over (tensors, numbers, texts, "
            "lists and dicts are restored)"
        )
    return None


def _read(path: Path, cell_id: str) -> dict[str, Any]:
    data: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if data["cell_id"] != cell_id:
        raise ValueError(f"it belongs to cell {data['cell_id']}")
    return data


def _check_fit(model: nn.Module, state: dict[str, Any]) -> None:
    """Raise ValueError if a parameter is missing, left over or of another shape."""
    shapes = {name: p.shape for name, p in model.named_parameters()}
    if any(name not in state or state[name].shape != shape for name, shape in shapes.items()):
        raise ValueError("its weights do not fit the model")
    modules = dict(model.named_modules())
    if any(name.rpartition(".")[0] not in modules for name in state):
        raise ValueError("its weights do not fit the model")


def _restore(model: nn.Module, data: dict[str, Any]) -> None:
    """Restore the model's whole state, first what its own code loads, as that may refuse it."""
    state = dict(data["model"])
    _check_fit(model, state)
    for name, module in model.named_modules():
        key = f"{name}.{_EXTRA}".lstrip(".")
        if key in state:
            module.set_extra_state(state.pop(key))
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name in state.keys() - parameters.keys():
        _set_buffer(model, name, state.pop(name), persistent=True)
    for name, buffer in data.get("buffers", {}).items():
        _set_buffer(model, name, buffer, persistent=False)
    model.load_state_dict(state, strict=False)


def _set_buffer(model: nn.Module, name: str, value: Tensor, *, persistent: bool) -> None:
    """Set a buffer, even if its shape has changed or `forward` created it."""
    parent, _, own = name.rpartition(".")
    module = model.get_submodule(parent)
    there = dict(module.named_buffers(recurse=False)).get(own)
    if there is not None and there.shape == value.shape:
        there.copy_(value)
        return
    value = value.to(next(model.parameters()).device)
    if own in module._buffers:
        module._buffers[own] = value
    else:
        module.register_buffer(own, value, persistent=persistent)


def _left_out(model: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that a state dict leaves out."""
    kept = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name not in kept}


def _version(buffer: Tensor) -> int | None:
    """Return a number that changes with the contents; None where torch counts no changes."""
    return None if buffer.is_inference() else buffer._version
