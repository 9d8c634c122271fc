"""What a model costs: floating-point operations per token."""

from __future__ import annotations

import contextlib
import copy
import math
import sys
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from mechbench.ops.kernels.withheld import withheld
from mechbench.ops.marks import COMPUTED_AGAIN, COUNTED
from mechbench.training.kinds import is_own, kind_of
from mechbench.training.model import Backbone


def _fft_flops(*args: Any, out_val: Any = None, **kwargs: Any) -> int:
    """Return 2.5 n log2 n per real transform, as is customary (5 n log2 n per complex one)."""
    x, axes = args[0], args[1]
    n = max(out_val.shape[axes[-1]], x.shape[axes[-1]])
    return int(x.numel() // x.shape[axes[-1]] * 2.5 * n * math.log2(max(2, n)))


_FFT_FLOPS: dict[Any, Callable[..., int]] = {
    torch.ops.aten._fft_r2c: _fft_flops,
    torch.ops.aten._fft_c2r: _fft_flops,
}


class FlopCounter(TorchDispatchMode):
    """Counts the FLOPs of this thread, by PyTorch's formulas, into `total`.

    PyTorch's own FlopCounterMode puts hooks on the modules of all threads, and loads its compiler.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total: float = 0.0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Say that the compiler need not be kept away from here: to keep it away loads it."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run `func` and count it, or else what it is made of."""
        kwargs = kwargs or {}
        packet = getattr(func, "_overloadpacket", None)
        formula = _FFT_FLOPS.get(packet) or flop_registry.get(packet)
        if formula is None and func is not torch.ops.prim.device.default:
            with self:
                made_of = func.decompose(*args, **kwargs)
            if made_of is not NotImplemented:
                return made_of
        out = func(*args, **kwargs)
        if formula is not None and not COMPUTED_AGAIN:
            self.total += formula(*args, **kwargs, out_val=out)
        return out


class _CausalHalf(TorchFunctionMode):
    """Takes from a count what causal attention need not do: half of each of its products."""

    def __init__(self, counter: FlopCounter) -> None:
        super().__init__()
        self._counter = counter

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run `func`; of causal SDPA the forward's half and the coming backward's are spared."""
        kwargs, before = kwargs or {}, self._counter.total
        out = func(*args, **kwargs)
        if func is F.scaled_dot_product_attention and kwargs.get("is_causal"):
            passes = 3 if out.requires_grad else 1  # two products forward, four backward
            self._counter.total -= passes * (self._counter.total - before) / 2
        return out


@contextlib.contextmanager
def counting(model: nn.Module) -> Iterator[FlopCounter]:
    """Count what this thread does with a model that is on no GPU: the one counter of FLOPs.

    Matrix products, SDPA and FFTs count; elementwise work does not. Of causal SDPA the lower half
    counts; what an operator multiplies by itself counts as it stands, masked or not, but for what
    it says it computes again in the backward pass. Triton kernels of others are not counted, and
    must not be launched there: they are an error.
    """
    # Other backends of SDPA have names of their own; this one is made of counted products. And a
    # backend that an operator names would count as it computes.
    with (
        contextlib.nullcontext() if is_own(model) else withheld(),
        sdpa_kernel(SDPBackend.MATH),
        COUNTED,
        FlopCounter() as counter,
        _CausalHalf(counter),
    ):
        yield counter


_counted: dict[Hashable, float] = {}
_REMEMBERED = 64
_POLITE_S = 1e-4  # that the counting thread goes on for when another waits for the interpreter
_SHORT = 2100  # tokens, of which a CPU computes one sequence in well under a second


def flops_per_token(
    model: nn.Module, input_seqlen: int, input_dim: int = 0, *, computed: bool = False
) -> float | None:
    """Return the FLOPs per token of a forward and backward pass over `input_seqlen` tokens.

    Counted on the meta device, so nothing is computed or allocated, as `counting` says. None where
    the operator cannot run without data, or has Triton kernels that are not the package's.
    Of equal blocks of a backbone one is counted and multiplied, and equal models are counted once.

    Args:
        model: on the CPU or on the meta device.
        input_seqlen: tokens of the sequence.
        input_dim: numbers a position, where inputs are no tokens.
        computed: run it on the CPU, where it can, which needs nothing of PyTorch's compiler.
    """
    try:
        key = kind_of(model), input_seqlen, input_dim
        if key not in _counted:
            _counted[key] = _total(model, input_seqlen, input_dim, computed) / input_seqlen
            if len(_counted) > _REMEMBERED:
                del _counted[next(iter(_counted))]
        return _counted[key]
    except Exception:
        # A plugin may need real data; its cost is then unknown, which is no fault.
        return None


class FlopsBeside:
    """`flops_per_token` of a model that is to be trained, without keeping a GPU waiting.

    The first count on the meta device loads PyTorch's compiler, for one to ten seconds. So a short
    sequence is computed on the CPU, and for a GPU a long one is counted in a thread, once there is
    time.
    """

    def __init__(
        self, model: nn.Module, input_seqlen: int, input_dim: int, training_device: str
    ) -> None:
        self._future: Future[float | None] | None = None
        short = input_seqlen <= _SHORT
        if short or training_device == "cpu":
            # Kernels of others may take a CPU's memory for a GPU's, and their modules count passes.
            computed = short and is_own(model)
            flops = flops_per_token(model, input_seqlen, input_dim, computed=computed)
            self._future = Future()
            self._future.set_result(flops)
            return
        try:
            ghost = copy.deepcopy(model).to("meta")
        except Exception:  # a plugin's, as in `flops_per_token`
            self._future = Future()
            self._future.set_result(None)
        else:
            self._args = ghost, input_seqlen, input_dim

    def begin(self) -> None:
        """Start to count, if that has not begun."""
        if self._future is None:
            counter = ThreadPoolExecutor(1)
            self._future = counter.submit(_count_politely, *self._args)
            counter.shutdown(wait=False)

    def result(self) -> float | None:
        """Wait for the number."""
        self.begin()
        assert self._future is not None
        return self._future.result()


def _count_politely(model: nn.Module, input_seqlen: int, input_dim: int) -> float | None:
    """Count in a thread that hands the interpreter over as soon as another wants it.

    Training gives it away at every operation, and would wait 5 ms each time to get it back.
    """
    usual = sys.getswitchinterval()
    sys.setswitchinterval(min(usual, _POLITE_S))
    try:
        return flops_per_token(model, input_seqlen, input_dim)
    finally:
        sys.setswitchinterval(usual)


def _total(model: nn.Module, input_seqlen: int, input_dim: int, computed: bool) -> float:
    kinds = _kinds(model) if isinstance(model, Backbone) else []
    if not isinstance(model, Backbone) or len(kinds) == len(model.blocks):
        return _count(model, input_seqlen, input_dim, computed)
    total = rest = _count(_with_blocks(model), input_seqlen, input_dim, computed)
    for block, n in kinds:
        total += n * (_count(_with_blocks(model, block), input_seqlen, input_dim, computed) - rest)
    return total


def _count(model: nn.Module, input_seqlen: int, input_dim: int, computed: bool = False) -> float:
    """Count every module of the model; raises what a model that needs data makes torch raise."""
    if computed:
        with contextlib.suppress(Exception), torch.random.fork_rng([]):  # it may be for GPUs alone
            return _count_on("cpu", model, input_seqlen, input_dim)
    return _count_on("meta", model, input_seqlen, input_dim)


def _count_on(device: str, model: nn.Module, input_seqlen: int, input_dim: int) -> float:
    ghost = copy.deepcopy(model).to(device)
    tokens = torch.zeros(1, input_seqlen, dtype=torch.int64, device=device)
    numbers = torch.zeros(1, input_seqlen, input_dim, device=device)
    with counting(model) as counter:
        logits = ghost(numbers if input_dim else tokens)
        F.cross_entropy(logits.flatten(0, 1), tokens.flatten()).backward()  # type: ignore[no-untyped-call]
    return counter.total


def _with_blocks(model: Backbone, *blocks: nn.Module) -> Backbone:
    """Return the model with these blocks in place of its own, which it keeps."""
    other = copy.copy(model)
    other._modules = dict(model._modules)
    other.blocks = nn.ModuleList(blocks)
    return other


def _kinds(model: Backbone) -> list[tuple[nn.Module, int]]:
    """Return a block of each kind, and how many of it the model has."""
    found: dict[Hashable, list[nn.Module]] = {}
    for block in model.blocks:
        found.setdefault(kind_of(block), []).append(block)
    return [(blocks[0], len(blocks)) for blocks in found.values()]
