"""Which implementation of an op ran, a backend, fused kernels or plain PyTorch: results record it.

An op that has several notes its choice here. In steps that are replayed as CUDA graphs ops are not
called: what is recorded is what was called, when they were captured and when a model is scored.
"""

from __future__ import annotations

from torch import Tensor

Record = dict[tuple[str, str], set[str]]  # (op, type of device): its implementations

_USED: Record = {}


def note(op: str, x: Tensor, how: str) -> None:
    """Record that `op` takes x with the implementation `how`."""
    _USED.setdefault((op, x.device.type), set()).add(how)


def noted(op: str, x: Tensor, fused: bool) -> bool:
    """Record that `op` takes x with fused Triton kernels, or else in PyTorch; return `fused`."""
    note(op, x, "triton" if fused else "torch")
    return fused


def ops_used(device_type: str) -> dict[str, str]:
    """Return {op: what ran of it there} since `forget_ops_used`; several are joined by commas."""
    found = {
        op: ", ".join(sorted(how)) for (op, where), how in _USED.items() if where == device_type
    }
    return dict(sorted(found.items()))


def forget_ops_used() -> None:
    """Clear the record, at the start of a run."""
    _USED.clear()


def exchange(record: Record) -> Record:
    """Go on with another record, where several runs take turns; return the one so far."""
    global _USED
    before, _USED = _USED, record
    return before
