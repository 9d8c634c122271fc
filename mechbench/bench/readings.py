"""One reading: a sequence mixer alone, or `fft_conv` alone, at one length.

A mixer has float32 parameters and runs under autocast, as in training, eagerly; its input is
(B, L, D) in the bench's dtype. `fft_conv` gets (B, D, L) in that dtype and a float32 filter
(D, L), as Hyena gives it. "Forward" runs without gradients.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mechbench.bench.measure import peak_mib, release, times_ms
from mechbench.bench.record import (
    ERROR,
    NOT_RUN,
    OK,
    OUT_OF_MEMORY,
    REFERENCE,
    Line,
    Measured,
    Reading,
    Setting,
    Work,
)
from mechbench.errors import OperatorError
from mechbench.operators.base import make_operator
from mechbench.ops.fft_conv import (
    available_backends,
    fft_conv,
)
from mechbench.ops.used import forget_ops_used, ops_used
from mechbench.record.seeds import derive
from mechbench.training.cost import counting
from mechbench.training.devices import on
from mechbench.training.evaluation import autocast
from mechbench.training.gate.contract import breach
from mechbench.training.memory import is_out_of_memory

# Each forced in turn for the line "attention" on CUDA; the best is taken.
SDPA = {"flash": SDPBackend.FLASH_ATTENTION, "cuDNN": SDPBackend.CUDNN_ATTENTION}
DEFAULT_SDPA = "SDPA's choice"


@dataclass(frozen=True)
class _Case:
    """What is timed."""

    forward: Callable[[], Tensor]
    both: Callable[[], None]
    clear: Callable[[], None]  # between two passes: forget the gradients
    work: Work


def take_reading(line: Line, seqlen: int, setting: Setting) -> Reading:
    """Measure a line at a length; an error becomes its status, and memory is released."""
    with on(setting.device):
        reading = _guarded(line, seqlen, setting)
        release(setting.device)
    return reading


def _guarded(line: Line, seqlen: int, setting: Setting) -> Reading:
    batch = setting.batch(seqlen)
    try:
        forget_ops_used()
        if line.conv_backend is not None:
            return _conv_reading(line, seqlen, setting)
        return _operator_reading(line, seqlen, setting)
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())
        if is_out_of_memory(error):
            told = ". ".join(text.split(". ")[:2]).removesuffix(".")  # what was asked for
            return Reading(line.name, seqlen, batch, OUT_OF_MEMORY, told[:200])
        return Reading(line.name, seqlen, batch, ERROR, f"{type(error).__name__}: {text}"[:200])


def _operator_reading(line: Line, seqlen: int, setting: Setting) -> Reading:
    case = _operator_case(line, seqlen, setting)
    batch = setting.batch(seqlen)
    if line.name != REFERENCE:
        measured = _measure(case, setting)
        backend = ops_used(setting.device.partition(":")[0]).get("fft_conv", "")
        return Reading(line.name, seqlen, batch, OK, "", backend, measured, case.work)
    candidates: dict[str, Measured | str] = {}
    if _is_cuda(setting):
        for name, kernel in SDPA.items():
            candidates[name] = _forced(case, setting, kernel)
    found = {k: v for k, v in candidates.items() if isinstance(v, Measured)}
    if not found:
        if candidates and all(v == OUT_OF_MEMORY for v in candidates.values()):
            told = f"{' and '.join(candidates)} alike"
            return Reading(line.name, seqlen, batch, OUT_OF_MEMORY, told, candidates=candidates)
        found = {DEFAULT_SDPA: _measure(case, setting)}
    best = min(found, key=lambda name: found[name].both)
    return Reading(line.name, seqlen, batch, OK, "", best, found[best], case.work, candidates)


def _forced(case: _Case, setting: Setting, kernel: SDPBackend) -> Measured | str:
    """Return the figures with one SDPA kernel, or why there are none."""
    try:
        with warnings.catch_warnings(), sdpa_kernel(kernel):
            warnings.simplefilter("ignore")  # PyTorch's reasons, one a kernel that it did not ask
            return _measure(case, setting)
    except RuntimeError as error:
        reason = OUT_OF_MEMORY if is_out_of_memory(error) else " ".join(str(error).split())[:200]
    case.clear()
    release(setting.device)
    return reason


def _operator_case(line: Line, seqlen: int, setting: Setting) -> _Case:
    """Build the operator.

    Raises:
        OperatorError: it does not give back the shape of its input.
    """
    torch.manual_seed(derive(setting.seed, "bench"))
    module = make_operator(
        line.name, d_model=setting.d_model, max_seqlen=seqlen, **line.options
    ).train()
    shape = (setting.batch(seqlen), seqlen, setting.d_model)
    forward_flops, both_flops = (count_flops(module, shape, backward=b) for b in (False, True))
    module = module.to(setting.device)
    u = torch.randn(shape, device=setting.device, dtype=getattr(torch, setting.dtype))

    def run(x: Tensor) -> Tensor:
        with autocast(setting.device, setting.dtype):  # anew each time, as its cache of weights is
            y: Tensor = module(x)
        return y

    with torch.no_grad():
        y = run(u)
    fault = breach(u, y)
    if fault is not None:
        raise OperatorError(f"operator {line.name!r} {fault}")
    moved = u.nbytes + y.nbytes
    work = Work(moved, 2 * moved, forward_flops, both_flops)
    return _case(run, u, torch.randn_like(y), list(module.parameters()), work)


def _conv_reading(line: Line, seqlen: int, setting: Setting) -> Reading:
    B, D, name = setting.batch(seqlen), setting.d_model, str(line.conv_backend)
    torch.manual_seed(derive(setting.seed, "bench"))
    u = torch.randn(B, D, seqlen, device=setting.device, dtype=getattr(torch, setting.dtype))
    h = (torch.randn(D, seqlen, device=setting.device) / seqlen**0.5).requires_grad_()
    reason = available_backends()[name].unsupported(u, h)
    if reason is not None:
        return Reading(line.name, seqlen, B, NOT_RUN, reason)
    moved = 2 * u.nbytes + h.nbytes  # u and h in, y out; then their gradients
    case = _case(
        lambda x: fft_conv(x, h, backend=name), u, torch.randn_like(u), [h], Work(moved, 2 * moved)
    )
    return Reading(line.name, seqlen, B, OK, "", name, _measure(case, setting), case.work)


def _case(
    run: Callable[[Tensor], Tensor], u: Tensor, dy: Tensor, leaves: list[Any], work: Work
) -> _Case:
    def forward() -> Tensor:
        with torch.no_grad():
            return run(u)

    def both() -> None:
        run(u.detach().requires_grad_()).backward(dy)  # type: ignore[no-untyped-call]

    def clear() -> None:
        for leaf in leaves:
            leaf.grad = None

    return _Case(forward, both, clear, work)


def _measure(case: _Case, setting: Setting) -> Measured:
    # Run once before measuring the peak: what only a first pass allocates does not count.
    case.both()
    case.clear()
    peak = peak_mib(case.both, setting.device)
    both = times_ms(case.both, setting.repeats, setting.device, case.clear)
    case.clear()
    forward = times_ms(case.forward, setting.repeats, setting.device)
    return Measured(forward, both, peak)


def count_flops(module: nn.Module, shape: tuple[int, int, int], *, backward: bool) -> float | None:
    """Return the FLOPs of a pass over an input of `shape`, counted on the meta device.

    As `mechbench.training.cost.counting` counts. None where the operator cannot run without data.
    """
    try:
        ghost = copy.deepcopy(module).to("meta")
        u = torch.zeros(shape, device="meta", requires_grad=backward)
        with counting(ghost) as counter, torch.set_grad_enabled(backward):
            y = ghost(u)
            if backward:
                y.backward(torch.empty_like(y))
    except Exception:
        # As in `mechbench.training.cost`: a plugin may need real data; its cost is then unknown.
        return None
    return counter.total


def _is_cuda(setting: Setting) -> bool:
    return setting.device.startswith("cuda")
