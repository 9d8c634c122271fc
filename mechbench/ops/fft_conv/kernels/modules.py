"""The compiled kernels for one length: those of the convolution, and those with gates around it."""

from __future__ import annotations

from functools import cached_property

import torch

from mechbench.ops.fft_conv.cuda import compiled, reals
from mechbench.ops.kernels.nvrtc import Module


class Modules:
    """What is compiled, each at its first use, from the sources `NAME.cuh`, `NAME*.cu`.

    Args:
        name: whole or steps.
        dtype: of rows.
        device: to run on.
        defined: before the sources, beside what both have.
    """

    def __init__(
        self, name: str, dtype: torch.dtype, device: torch.device, **defined: object
    ) -> None:
        self._name, self._device = name, device
        self._defined = {"REAL": reals(dtype), **defined}

    @cached_property
    def plain(self) -> Module:
        """The convolution."""
        return self._compiled(".cu")

    @cached_property
    def mixing(self) -> Module:
        """The same with gates, short convolutions and skip of an order-2 Hyena."""
        return self._compiled("_mix.cu", "pieces.cuh")

    def _compiled(self, ending: str, *between: str) -> Module:
        names = (f"{self._name}.cuh", *between, self._name + ending)
        return compiled(*names, device=self._device, **self._defined)
