"""How the time and memory of a forward and backward pass grow with the length."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor, nn

from mechbench.checks.subject import Finding, Subject, judged

_LENGTHS = (1, 2, 4, 8)  # times seqlen
_REPEATS = 3


def growth(subject: Subject) -> list[Finding]:
    """Return how memory, which is counted, and time, which is measured, grow."""
    lengths = [n * subject.seqlen for n in _LENGTHS]
    return [
        judged("memory", lambda: _finding(subject, "memory", lengths)),
        judged("time", lambda: _finding(subject, "time", lengths)),
    ]


def _finding(subject: Subject, name: str, lengths: list[int]) -> Finding:
    figures = []
    for L in lengths:
        module, u = subject.build(L).train(), subject.inputs(1, L)
        figures.append(saved_bytes(module, u) / 2**20 if name == "memory" else seconds(module, u))
    e = exponent(lengths, figures)
    unit, key = ("MiB", "mib") if name == "memory" else ("s", "seconds")
    what = "kept for the backward pass" if name == "memory" else "forward and backward"
    told = ", ".join(f"{figure:.3g}" for figure in figures)
    text = f"L^{e:.2f}: {told} {unit} {what} at L {lengths[0]} to {lengths[-1]}"
    return Finding(name, "", text, {"exponent": e, "seqlens": lengths, key: figures})


def saved_bytes(module: nn.Module, u: Tensor) -> int:
    """Return the bytes that a forward pass keeps for the backward pass.

    Each storage counts once, and parameters and buffers not at all. It is counted, not measured:
    the same on every machine.
    """
    kept: dict[int, int] = {}
    own = {x.untyped_storage().data_ptr() for x in (*module.parameters(), *module.buffers())}

    def pack(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        y = module(u.detach().requires_grad_())
    del y  # until here, so that no storage is used twice
    return sum(kept.values())


def seconds(module: nn.Module, u: Tensor) -> float:
    """Return the least time of a forward and backward pass out of a few."""
    best = math.inf
    for _ in range(_REPEATS + 1):  # the first warms up
        x = u.detach().requires_grad_()
        _wait(u)
        start = time.perf_counter()
        module(x).sum().backward()
        _wait(u)
        best = min(best, time.perf_counter() - start)
    return best


def exponent(lengths: list[int], figures: list[float]) -> float:
    """Return e of the least-squares fit figures = a L^e."""
    xs, ys = ([math.log(max(v, 1e-12)) for v in values] for values in (lengths, figures))
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    above = sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True))
    return above / sum((a - x) ** 2 for a in xs)


def _wait(u: Tensor) -> None:
    if u.is_cuda:
        torch.cuda.synchronize(u.device)
