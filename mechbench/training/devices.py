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


def wake_autograd(device: str) -> None:
    """Give the thread of a device's backward passes its CUDA context.

    Where a kernel comes there first, cuBLAS warns, and one of Triton's starts in the context of a
    device that was in use before.
    """
    if device.startswith("cuda"):
        one = torch.ones(1, device=device, requires_grad=True)
        one.neg().backward()  # type: ignore[no-untyped-call]
