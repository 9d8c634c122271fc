"""A cell's checkpoint: the model's whole state, optimizer, schedule and progress in one file.

The whole state is more than a state dict says: buffers that it leaves out or that forward made, and
an operator's extra state, count too. Files are read without running code (`weights_only`).
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mechbench.errors import ConfigError, OperatorError, ResultError
from mechbench.record.config import ANYTIME, Config
from mechbench.record.files import set_aside, write_atomic
from mechbench.training.likeness import check_like
from mechbench.training.loop import Progress
from mechbench.training.memory import is_out_of_memory
from mechbench.training.named_schedules import SCHEDULES
from mechbench.training.schedule_free import ScheduleFreeAdamW
from mechbench.training.schedules import Constant

_EXTRA = "_extra_state"  # how torch names what `get_extra_state` gave, after the module's name


class CodeChangedError(ConfigError):
    """The operator of a checkpoint is another now."""


def save_checkpoint(
    path: Path,
    cell_id: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    schedule: Constant | None = None,
    code: Mapping[str, str] | None = None,
) -> None:
    """Write the checkpoint atomically.

    Args:
        path: of the file.
        cell_id: of the cell.
        model: in training.
        optimizer: of the model.
        progress: of the run.
        schedule: of the run; without it there is nothing to keep of one.
        code: what `mechbench.training.reuse.built_in_code` gives.

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
        "schedule": {} if schedule is None else schedule.state_dict(),
        "code": dict(code or {}),
    }
    write_atomic(path, lambda file: torch.save(data, file))


def load_weights(path: Path, config: Config, model: nn.Module) -> None:
    """Restore the weights that were evaluated and leave the file as it is, to look at them.

    Raises:
        ResultError: the file is missing, corrupt or of another cell.
    """
    try:
        data = _read(path, config.cell_id)
        if config.protocol < ANYTIME:
            _restore(model, data)
            return
        kind = SCHEDULES[config.schedule]
        optimizer = kind.optimizer(model, config.lr, config.weight_decay)
        schedule = kind(model, optimizer, config.warmup_steps)
        _load(data, model, optimizer, schedule, config)
        with schedule.weights():
            evaluated = [p.detach().clone() for p in model.parameters()]
        with torch.no_grad():
            torch._foreach_copy_(list(model.parameters()), evaluated)
    except FileNotFoundError as error:
        raise ResultError(f"{path} does not exist: the run has not stored any weights") from error
    except Exception as error:  # whatever a damaged file makes the reader raise
        if is_out_of_memory(error):
            raise
        text = " ".join(str(error).split())[:200]
        raise ResultError(f"{path} is corrupt ({type(error).__name__}: {text})") from error


def load_checkpoint(
    path: Path,
    cell_id: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: Config | None = None,
    schedule: Constant | None = None,
    code: Mapping[str, str] | None = None,
) -> tuple[Progress | None, str | None]:
    """Restore model, optimizer and schedule; return (progress, None), or (None, warning).

    A damaged file, or one of another cell, is renamed and never used: model, optimizer and schedule
    are then as they were, and the warning says so. Without a file both are None. What `config`
    allows is checked where it is given.

    Raises:
        ConfigError: `code` is given and is not what the checkpoint was trained with.
    """
    _mark_built(model)
    if not path.exists():
        return None, None
    undo = _undo(model)
    try:
        data = _read(path, cell_id)
        if code is not None:
            _check_code(path, data["code"], code)
        progress = _load(data, model, optimizer, schedule, config)
    except CodeChangedError:
        raise
    except Exception as error:  # whatever a damaged file makes the reader raise
        undo()
        _mark_built(model)
        if is_out_of_memory(error):
            raise
        text = " ".join(str(error).split())[:200]
        return None, (
            f"{path} is corrupt ({type(error).__name__}: {text}); "
            f"set aside as {set_aside(path).name}, training starts over"
        )
    return progress, None


def _load(
    data: dict[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Constant | None,
    config: Config | None,
) -> Progress:
    """Restore all of a checkpoint that fits, the model first; return the progress.

    Raises:
        Exception: of any kind, where something does not fit. Optimizer and schedule are then as
            they were.
    """
    from mechbench.training.stored_progress import stored_progress

    progress = stored_progress(data["progress"], config)
    stored = _optimizer_state(optimizer, data["optimizer"], progress.step)
    if schedule is not None:
        schedule.check(data["schedule"], progress.tokens, _tensors_of(stored))
    _restore(model, data)
    optimizer.load_state_dict(stored)
    if schedule is not None:
        schedule.load_state_dict(data["schedule"])
    return progress


def _check_code(path: Path, stored: Any, code: Mapping[str, str]) -> None:
    """Refuse to go on with an operator that is not the one the checkpoint was trained with."""
    if not isinstance(stored, dict):
        raise ValueError("it does not say what code it was trained with")
    changed = sorted(name for name in {*stored, *code} if stored.get(name) != code.get(name))
    if changed:
        raise CodeChangedError(
            f"{', '.join(map(str, changed))} changed since {path} was written: the run is not "
            "carried on with other code; --fresh (resume=False) starts it over"
        )


def check_extra_state(model: nn.Module, operator: str) -> str | None:
    """Return a warning if a checkpoint with the operator's extra state could not be read again.

    Raises:
        OperatorError: it could not even be written.
    """
    extra = {k: v for k, v in model.state_dict().items() if k.endswith(_EXTRA)}
    if not extra:
        return None
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


def _optimizer_state(optimizer: torch.optim.Optimizer, stored: Any, steps: int) -> dict[str, Any]:
    """Return the stored state as the optimizer may load it.

    Raises:
        ValueError: it is not as the optimizer makes it.
    """
    if isinstance(optimizer, ScheduleFreeAdamW):
        optimizer.check(stored)
        return dict(stored)
    # Options and rates of the groups come from the configuration, and `set_lr` sets the rates.
    groups = optimizer.state_dict()["param_groups"]
    return {"state": _moments(optimizer, stored, steps), "param_groups": groups}


def _tensors_of(stored: dict[str, Any]) -> list[Tensor]:
    """Return the optimizer's state of each parameter, in the order of `StableDecay`."""
    states = sorted(stored.get("state", {}).items())
    return [value for _, state in states for _, value in sorted(state.items())]


def _moments(optimizer: torch.optim.Optimizer, stored: Any, steps: int) -> dict[int, Any]:
    """Return the stored state of each parameter, which must be as AdamW makes it.

    Raises:
        ValueError: it is not.
    """
    groups = optimizer.state_dict()["param_groups"]
    if [group["params"] for group in stored["param_groups"]] != [g["params"] for g in groups]:
        raise ValueError("its optimizer has other parameters")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, state in stored["state"].items():
        if type(index) is not int or not 0 <= index < len(parameters):
            raise ValueError(f"its optimizer has no parameter {index!r}")
        if set(state) != {"step", "exp_avg", "exp_avg_sq"}:
            raise ValueError("its optimizer keeps something else than AdamW")
        for key in ("exp_avg", "exp_avg_sq"):
            check_like(f"{key} of its optimizer", state[key], parameters[index])
        step = state["step"]
        if not isinstance(step, Tensor) or step.shape != () or not step.is_floating_point():
            raise ValueError("its optimizer has lost count of its steps")
        if not 0 <= step.item() <= steps:
            raise ValueError(f"its optimizer is at step {step.item():.0f} of {steps}")
    moments: dict[int, Any] = stored["state"]
    return moments


def _check_fit(model: nn.Module, data: dict[str, Any]) -> None:
    """Raise ValueError if a parameter is missing, left over or of another shape or type."""
    state, buffers = data["model"], data.get("buffers", {})
    for name, parameter in model.named_parameters():
        if name not in state:
            raise ValueError("its weights do not fit the model")
        check_like("a weight", state[name], parameter)
    modules = dict(model.named_modules())
    there = dict(model.named_buffers())
    for name, value in (*state.items(), *buffers.items()):
        parent, _, own = name.rpartition(".")
        if parent not in modules or not own:
            raise ValueError("its weights do not fit the model")
        if own == _EXTRA and name in state:
            continue
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            raise ValueError(f"buffer {name!r} is no tensor")
        if name in there and there[name].dtype != value.dtype:
            raise ValueError(f"buffer {name!r} is {value.dtype}: expected {there[name].dtype}")


def _restore(model: nn.Module, data: dict[str, Any]) -> None:
    """Restore the model's whole state, first what its own code loads, as that may refuse it."""
    _check_fit(model, data)
    state = dict(data["model"])
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


def _undo(model: nn.Module) -> Callable[[], None]:
    """Return what gives parameters, buffers and extra states back as they are now."""
    weights = [(p, p.detach().clone()) for p in model.parameters()]
    buffers = [
        (m, dict(m._buffers), [(b, b.clone()) for b in m._buffers.values() if b is not None])
        for m in model.modules()
    ]
    extra: list[tuple[nn.Module, Any]] = []
    for module in model.modules():
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            with contextlib.suppress(Exception):  # whatever a foreign object makes a copy raise
                extra.append((module, copy.deepcopy(module.get_extra_state())))

    def undo() -> None:
        with torch.no_grad():
            for parameter, value in weights:
                parameter.copy_(value)
            for module, named, values in buffers:
                module._buffers.clear()
                module._buffers.update(named)
                for buffer, value in values:
                    buffer.copy_(value)
        for module, state in extra:
            with contextlib.suppress(Exception):  # it may refuse any state
                module.set_extra_state(state)

    return undo


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


def _mark_built(model: nn.Module) -> None:
    """Note what buffers are like now: a later checkpoint keeps those that have changed."""
    for buffer in _left_out(model).values():
        buffer.as_built = _version(buffer)  # type: ignore[attr-defined]


def _version(buffer: Tensor) -> int | None:
    """Return a number that changes with the contents; None where torch counts no changes."""
    return None if buffer.is_inference() else buffer._version
