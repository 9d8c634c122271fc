"""One optimizer step, replayed as a CUDA graph where it can be captured.

Short sequences leave a GPU waiting for Python to launch its kernels. A graph launches the whole
step at once: forward, backward, clipping and update, the same kernels on the same numbers. The
first steps of every shape run eagerly, which warms up what a capture must not do (plans, compiled
kernels, workspaces); an operator that cannot be captured goes on eagerly.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mechbench.training.draws import device_generator
from mechbench.training.optimiser import clip, set_lr

WARM_UP = 3  # eager steps of a shape before it is captured

Gradients = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # inputs, targets -> loss, counts


class Stepper:
    """Takes optimizer steps; the result does not depend on whether they are captured.

    Args:
        optimizer: from `mechbench.training.optimiser.make_optimizer`.
        gradients: computes gradients, as `mechbench.training.loop.step_gradients`.
        grad_clip: largest global norm of the gradient.
        capture: allow CUDA graphs.
        warn: told once if a step cannot be captured.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        gradients: Gradients,
        grad_clip: float,
        capture: bool,
        warn: Callable[[str], None],
    ) -> None:
        self._optimizer, self._gradients = optimizer, gradients
        self._grad_clip, self._capture, self._warn = grad_clip, capture, warn
        self._shape: tuple[int, ...] = ()
        self._eager_steps = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._static: tuple[Tensor, ...] = ()

    def gradients(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute and clip the gradients; return loss, (2,) counts and the gradient's norm."""
        loss, counts = self._gradients(inputs, targets)
        return loss, counts, clip(self._optimizer, self._grad_clip)

    def update(self, factor: float) -> None:
        """Apply the gradients at `factor` times the peak rates."""
        set_lr(self._optimizer, factor)
        self._optimizer.step()

    def replay(self, inputs: Tensor, targets: Tensor, factor: float) -> tuple[Tensor, ...] | None:
        """Take a whole captured step and return what `gradients` does, or None if there is none.

        What is returned is overwritten by the next replay.
        """
        if not self._capture or not inputs.is_cuda:
            return None
        if inputs.shape != self._shape:
            self._shape, self._eager_steps, self._graph = tuple(inputs.shape), 0, None
        if self._graph is None:
            self._eager_steps += 1
            if self._eager_steps <= WARM_UP or not self._captured(inputs, targets):
                return None
        assert self._graph is not None
        static_inputs, static_targets, *results = self._static
        static_inputs.copy_(inputs)
        static_targets.copy_(targets)
        set_lr(self._optimizer, factor)
        self._graph.replay()
        return tuple(results)

    def _captured(self, inputs: Tensor, targets: Tensor) -> bool:
        """Capture a step of this shape; if that fails, never try again."""
        static = (inputs.clone(), targets.clone())
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(inputs.device)
        try:
            with torch.cuda.graph(graph):
                results = self.gradients(*static)
                self._optimizer.step()
        except Exception as error:
            self._capture = False
            text = " ".join(str(error).split())[:120]
            self._warn(f"training goes on without a CUDA graph: {text}")
            torch.cuda.synchronize(inputs.device)
            torch.cuda.empty_cache()
            _release_generator(inputs.device)
            return False
        self._graph, self._static = graph, (*static, *results)
        return True


def _release_generator(device: torch.device) -> None:
    """Give the device's generator a state that no capture holds; a broken one keeps the old."""
    generator = device_generator(device)
    generator.graphsafe_set_state(torch.Generator(generator.device).graphsafe_get_state())
