"""One optimizer step, replayed as a CUDA graph where it can be captured.

Short sequences leave a GPU waiting for Python to launch its kernels. A graph launches the whole
step at once: forward, backward, clipping and update, the same kernels on the same numbers. The
first steps of every shape run eagerly, which warms up what a capture must not do (plans, compiled
kernels, workspaces); an operator that cannot be captured goes on eagerly.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mechbench.training.draws import device_generator
from mechbench.training.optimiser import clip, set_lr

WARM_UP = 3  # eager steps of a shape before it is captured

Gradients = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # inputs, targets -> loss, counts


class _Captured(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: Tensor
    targets: Tensor
    results: tuple[Tensor, ...]


class Graphs:
    """Captured steps of one model and optimizer, by shape, in one pool of memory.

    Args:
        keep: hold more than the last one: shapes come again in the next cell of the same kind.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self._keep, self._by_shape = keep, dict[Hashable, _Captured]()

    def get(self, shape: Hashable) -> _Captured | None:
        """Return the step captured for a shape."""
        return self._by_shape.get(shape)

    def make_room(self) -> Any:
        """Drop what is not kept; return the pool of what is, for the next capture."""
        if not self._keep:
            self._by_shape.clear()
        pools = [step.graph.pool() for step in self._by_shape.values()]
        return pools[0] if pools else None

    def add(self, shape: Hashable, step: _Captured) -> None:
        """Keep a captured step."""
        self._by_shape[shape] = step

    def clear(self) -> None:
        """Drop all."""
        self._by_shape.clear()


class Stepper:
    """Takes optimizer steps; the result does not depend on whether they are captured.

    Args:
        model: its parameters are updated.
        optimizer: from `mechbench.training.optimiser.make_optimizer`.
        gradients: computes gradients, as `mechbench.training.loop.step_gradients`.
        grad_clip: largest global norm of the gradient.
        capture: allow CUDA graphs.
        warn: told once if a step cannot be captured.
        graphs: steps that were captured before, with the same optimizer and `grad_clip`.
        alone: gives a context in which no other thread calls CUDA.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        gradients: Gradients,
        grad_clip: float,
        capture: bool,
        warn: Callable[[str], None],
        graphs: Graphs | None = None,
        alone: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._model, self._optimizer, self._gradients = model, optimizer, gradients
        self._grad_clip, self._capture, self._warn = grad_clip, capture, warn
        self._graphs = Graphs() if graphs is None else graphs
        self._alone = alone
        self._shape: Hashable = ()
        self._eager_steps = 0

    def gradients(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute and clip the gradients; return loss, (2,) counts and the gradient's norm."""
        loss, counts = self._gradients(inputs, targets)
        return loss, counts, clip(self._model, self._optimizer, self._grad_clip)

    def update(self, factor: float) -> None:
        """Apply the gradients at `factor` times the peak rates."""
        set_lr(self._optimizer, factor)
        self._optimizer.step()

    def replay(
        self, inputs: Tensor, targets: Tensor, factor: float, micro_batch: int = 0
    ) -> tuple[Tensor, ...] | None:
        """Take a whole captured step and return what `gradients` does, or None if there is none.

        What is returned is overwritten by the next replay.

        Args:
            inputs: (B, L) or (B, L, d).
            targets: (B, L) or (B, 2, L).
            factor: on the peak rates.
            micro_batch: sequences that `gradients` takes at once.
        """
        if not self._capture or not inputs.is_cuda:
            return None
        shape = (tuple(inputs.shape), tuple(targets.shape), micro_batch)
        if shape != self._shape:
            self._shape, self._eager_steps = shape, 0
        step = self._graphs.get(shape)
        if step is None:
            self._eager_steps += 1
            if self._eager_steps <= WARM_UP:
                return None
            step = self._captured(inputs, targets)
            if step is None:
                return None
        step.inputs.copy_(inputs)
        step.targets.copy_(targets)
        set_lr(self._optimizer, factor)
        step.graph.replay()
        return step.results

    def _captured(self, inputs: Tensor, targets: Tensor) -> _Captured | None:
        """Capture a step of this shape; if that fails, never try again."""
        static = (inputs.clone(), targets.clone())
        pool = self._graphs.make_room()
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(inputs.device)
        try:
            with self._alone(), torch.cuda.graph(graph, pool=pool, stream=_own_stream(inputs)):
                results = self.gradients(*static)
                self._optimizer.step()
        except Exception as error:
            self._capture = False
            text = " ".join(str(error).split())[:120]
            self._warn(f"training goes on without a CUDA graph: {text}")
            torch.cuda.synchronize(inputs.device)
            self._graphs.clear()  # they draw from the generator's old state
            torch.cuda.empty_cache()
            _release_generator(inputs.device)
            return None
        step = _Captured(graph, *static, results)
        self._graphs.add(self._shape, step)
        return step


def _own_stream(x: Tensor) -> torch.cuda.Stream:
    """Return the current stream if it can capture; for the default one, another of the device."""
    stream = torch.cuda.current_stream(x.device)
    return _side(x.device) if stream == torch.cuda.default_stream(x.device) else stream


@cache
def _side(device: torch.device) -> torch.cuda.Stream:
    """Return the stream of a GPU to capture on: PyTorch's own is of the first that captured."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _release_generator(device: torch.device) -> None:
    """Give the device's generator a state that no capture holds; a broken one keeps the old."""
    generator = device_generator(device)
    generator.graphsafe_set_state(torch.Generator(generator.device).graphsafe_get_state())
