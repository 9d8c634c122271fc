"""Which GPU is the current one: kernels of Triton start there, wherever their tensors are."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def on(device: str) -> AbstractContextManager[object]:
    """Return the context in which `device` is the current one, for kernels and events.

    Args:
        device: "cpu", "cuda" or "cuda:N".
    """
    return torch.cuda.device(device) if device.startswith("cuda") else nullcontext()
