"""Which implementation of an op ran, fused kernels or plain PyTorch: results record it.

An op that has both passes its choice through `noted`. In steps that are replayed as CUDA graphs
ops are not called: what is recorded is what was called, when they were captured and when a model is
scored.
"""

from __future__ import annotations

from torch import Tensor

_USED: dict[tuple[str, str], set[str]] = {}  # (op, type of device): "torch", "triton"


def noted(op: str, x: Tensor, fused: bool) -> bool:
    """Record that `op` takes x with fused Triton kernels, or else in PyTorch; return `fused`."""
    _USED.setdefault((op, x.device.type), set()).add("triton" if fused else "torch")
    return fused


def kernels_used(device_type: str) -> dict[str, str]:
    """Return {op: "torch", "triton" or both} of what ran there since `forget_kernels_used`."""
    found = {
        op: ", ".join(sorted(how)) for (op, where), how in _USED.items() if where == device_type
    }
    return dict(sorted(found.items()))


def forget_kernels_used() -> None:
    """Clear the record, at the start of a run."""
    _USED.clear()
