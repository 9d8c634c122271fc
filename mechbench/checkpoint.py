"""A cell's checkpoint: weights, optimizer and progress in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from mechbench.atomic import set_aside, write_atomic
from mechbench.errors import ResultError
from mechbench.memory import is_out_of_memory
from mechbench.train import Progress


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
        "optimizer": optimizer.state_dict(),
        "progress": progress.to_dict(),
    }
    write_atomic(path, lambda file: torch.save(data, file))


def load_weights(path: Path, cell_id: str, model: nn.Module) -> None:
    """Restore the weights alone and leave the file as it is, to look at a trained model.

    Raises:
        ResultError: the file is missing, corrupt or of another cell.
    """
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
        if data["cell_id"] != cell_id:
            raise ValueError(f"it belongs to cell {data['cell_id']}")
        model.load_state_dict(data["model"])
    except FileNotFoundError as error:
        raise ResultError(f"{path} does not exist: the run has stored no weights") from error
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
    if not path.exists():
        return None, None
    try:
        data: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if data["cell_id"] != cell_id:
            raise ValueError(f"it belongs to cell {data['cell_id']}")
        progress = Progress(**data["progress"])
        fitting = {k: v.shape for k, v in model.state_dict().items()}
        if fitting != {k: v.shape for k, v in data["model"].items()}:
            raise ValueError("its weights do not fit the model")
        optimizer.load_state_dict(data["optimizer"])
        model.load_state_dict(data["model"])
    except Exception as error:  # whatever a damaged file makes the reader raise
        if is_out_of_memory(error):
            raise
        text = " ".join(str(error).split())[:200]
        return None, (
            f"{path} is corrupt ({type(error).__name__}: {text}); "
            f"set aside as {set_aside(path).name}, training starts over"
        )
    return progress, None
