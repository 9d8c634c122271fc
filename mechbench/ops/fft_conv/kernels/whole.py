"""Long convolution with one kernel a direction: a block holds a row's transform (`cuda/whole.cu`).

A row is read once and written once. The backward keeps spectra of dz for a moment, of some
channels at a time.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from mechbench.ops.fft_conv.core import COMPLEX_BYTES, chunks
from mechbench.ops.fft_conv.cuda import compiled, reals
from mechbench.ops.kernels.nvrtc import Module

CHUNK_BYTES = 1 << 29  # size of the spectra that are kept
# Length of a transform: its radices, and elements a thread.
_PLANS = {
    2048: ((16, 8, 16), 16),
    4096: ((16, 16, 16), 16),
    8192: ((32, 16, 16), 32),
}
LENGTHS = tuple(_PLANS)


def shared_bytes(n: int) -> int:
    """Return the shared memory that a block needs for transforms of length n."""
    return COMPLEX_BYTES * (n + n // 16)


class _Whole:
    """The kernels for one length."""

    def __init__(self, n: int, dtype: torch.dtype, device: torch.device) -> None:
        radices, elements = _PLANS[n]
        self.n = n
        self.block = {"threads": n // elements, "shared": shared_bytes(n)}
        self.processors = torch.cuda.get_device_properties(device).multi_processor_count
        self.module: Module = compiled(
            "whole.cu",
            device,
            RADICES=",".join(map(str, radices)),
            ELEMENTS=elements,
            REAL=reals(dtype),
        )

    def _spectra(self, *shape: int, like: Tensor) -> Tensor:
        return torch.empty(*shape, self.n, dtype=torch.complex64, device=like.device)

    def spectra(self, h: Tensor) -> Tensor:
        """Return the spectra (D, n) of filters h (D, K), divided by n."""
        D, K = h.shape
        H = self._spectra(D, like=h)
        self.module.launch("spectra", "ppif", (h, H, K, 1.0 / self.n), grid=(D, 1), **self.block)
        return H

    def convolve(
        self, v: Tensor, H: Tensor, z: Tensor, *, adjoint: bool, keep: bool = False
    ) -> Tensor | None:
        """Write the product of v (B, D, L) and the spectra H to z; return v's spectra (D, B, n)."""
        B, D, L = v.shape
        kept = self._spectra(D, B, like=v) if keep else None
        arguments = (v, H, z, kept, B, L, *v.stride()[:2], *z.stride()[:2], int(adjoint))
        self.module.launch("convolve", "ppppiilllli", arguments, grid=(B * D, 1), **self.block)
        return kept

    def correlate(self, dZ: Tensor, v: Tensor, dh: Tensor) -> None:
        """Write the gradient of the filters to dh (D, K), from spectra dZ (D, B, n)."""
        (B, D, L), K = v.shape, dh.shape[1]
        parts = max(1, min(B, -(-2 * self.processors // D)))  # two blocks a processor at least
        sums = self._spectra(parts, D, like=v)
        arguments = (dZ, v, sums, B, L, *v.stride()[:2])
        self.module.launch("correlate", "pppiill", arguments, grid=(D, parts), **self.block)
        arguments = (sums, dh, parts, K, L, 1.0 / self.n)
        self.module.launch("finish", "ppiiif", arguments, grid=(D, 1), **self.block)


@cache
def _whole(n: int, dtype: torch.dtype, device: torch.device) -> _Whole:
    return _Whole(n, dtype, device)


def forward(v: Tensor, h: Tensor, n: int) -> Tensor:
    """Return h * v (B, D, L) for float32 filters h (D, K), with transforms of length n >= L."""
    whole = _whole(n, v.dtype, v.device)
    z = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    whole.convolve(v, whole.spectra(h), z, adjoint=False)
    return z


def backward(dz: Tensor, v: Tensor, h: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the gradients of v and h."""
    whole = _whole(n, v.dtype, v.device)
    H = whole.spectra(h)
    dv = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    dh = torch.zeros_like(h) if h.shape[1] > v.shape[2] else torch.empty_like(h)
    for channels in chunks(v, n, CHUNK_BYTES):
        part = dz[:, channels]
        dZ = whole.convolve(part, H[channels], dv[:, channels], adjoint=True, keep=True)
        assert dZ is not None
        whole.correlate(dZ, v[:, channels], dh[channels])
    return dv, dh
