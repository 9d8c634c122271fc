"""The choice among the backends of an op, which are several implementations of one function.

`fft_conv` finds its own in a folder. Ops of recurrent states have three: fused Triton kernels of
ours, PyTorch, and the kernels of flash-linear-attention, each where the inputs allow it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from torch import Tensor

from mechbench.errors import ConfigError, nearest
from mechbench.ops.marks import COUNTED
from mechbench.ops.used import note

Reason = Callable[[], str | None]  # says why a backend cannot take the inputs; None if it can
BackendName = Literal["auto", "triton", "torch", "fla"]  # of an op of recurrent states


def choose(op: str, x: Tensor, backend: str, known: Mapping[str, Reason]) -> str:
    """Return the name of the backend with which `op` takes x and the inputs beside it.

    On the meta device, where nothing is computed, and where FLOPs are counted it is that of "auto".

    Args:
        op: name of the op, for messages.
        x: an input.
        backend: "auto", the first of `known` that can take the inputs, or one of its names.
        known: the backends, in order of preference.

    Raises:
        ConfigError: no such backend, or it cannot take the inputs, or none can.
    """
    if backend != "auto" and backend not in known:
        raise ConfigError(f"unknown {op} backend {backend!r}: {nearest(backend, ['auto', *known])}")
    if backend == "auto" or x.is_meta or COUNTED:
        reasons = []
        for name, unsupported in known.items():
            reason = unsupported()
            if reason is None:
                return name
            reasons.append(f"{name}: {reason}")
        raise ConfigError(f"no {op} backend can run: {'; '.join(reasons)}")
    reason = known[backend]()
    if reason is not None:
        raise ConfigError(f"{op} backend {backend!r} cannot run: {reason}")
    return backend


def pick(op: str, x: Tensor, backend: str, *, triton: Reason, fla: Reason) -> str:
    """Return "triton", "torch" or "fla", and record that `op` takes x with it.

    PyTorch takes everything, so the kernels of flash-linear-attention run only where they are
    named: they keep states in the type of the values, and Hopper GPUs are refused some of them.

    Args:
        op: name of the op.
        x: an input.
        backend: one of `BackendName`.
        triton: says why our kernels cannot take the inputs.
        fla: says why those of flash-linear-attention cannot.

    Raises:
        ConfigError: no such backend, or it cannot take the inputs.
    """
    known: dict[str, Reason] = {"triton": triton, "torch": lambda: None, "fla": fla}
    name = choose(op, x, backend, known)
    note(op, x, name)
    return name
