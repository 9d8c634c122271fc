"""The generators that an operator draws from in training: a function of the seed and the step.

Set before every step, so a run that is resumed, or validated in between, draws what it would have
drawn, and a checkpoint has no generators to keep.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch

from mechbench.record.seeds import derive


def seed_step(seed: int, step: int, device: str, rank: int = 0) -> None:
    """Set the generators of torch, Python and NumPy for one step.

    Args:
        seed: of the run.
        step: its number.
        device: of the run; its generator is set beside the CPU's.
        rank: of this process: those that share a step's sequences draw different numbers.
    """
    stream = derive(seed, "train", step, rank)
    torch.default_generator.manual_seed(stream)  # torch.manual_seed takes 0.8 ms
    if device.startswith("cuda"):
        device_generator(torch.device(device)).manual_seed(stream)
    random.seed(stream)
    np.random.seed(stream % 2**32)  # noqa: NPY002  # the global one is what operators use


def device_generator(device: torch.device) -> torch.Generator:
    """Return the generator that operators draw from on a CUDA device."""
    torch.cuda.init()  # type: ignore[no-untyped-call]  # without effect but the first time
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.cuda.default_generators[index]


@contextlib.contextmanager
def callers_generators(device: str) -> Iterator[None]:
    """Restore the caller's random generators, however the context ends."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng([device] if device.startswith("cuda") else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
