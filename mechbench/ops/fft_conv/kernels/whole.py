"""Long convolution with one kernel a direction: a block holds a row's transform (`cuda/whole.cu`).

A row is read once and written once. Spectra of the filters are kept for the backward; those of dz
for a moment, of some channels at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from mechbench.ops.fft_conv.contract import Projections
from mechbench.ops.fft_conv.core import COMPLEX_BYTES, chunks
from mechbench.ops.fft_conv.kernels.empty import empty_gradient, empty_pieces
from mechbench.ops.fft_conv.kernels.modules import Modules

CHUNK_BYTES = 1 << 29  # size of the spectra of dz
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
        self.n, self.device = n, device
        self._block = {"threads": n // elements, "shared": shared_bytes(n)}
        self._processors = torch.cuda.get_device_properties(device).multi_processor_count
        self._built = Modules(
            "whole",
            dtype,
            device,
            RADICES=",".join(map(str, radices)),
            ELEMENTS=elements,
        )

    def empty(self, *shape: int) -> Tensor:
        """Return uninitialised spectra (*shape, n)."""
        return torch.empty(*shape, self.n, dtype=torch.complex64, device=self.device)

    def spectra(self, h: Tensor) -> Tensor:
        """Return the spectra (D, n) of filters h (D, K), divided by n."""
        D, K = h.shape
        H = self.empty(D)
        arguments = (h, H, K, 1.0 / self.n)
        self._built.plain.launch("spectra", "ppif", arguments, grid=(D, 1), **self._block)
        return H

    def convolve(self, v: Tensor, H: Tensor, z: Tensor) -> None:
        """Write the product of v (B, D, L) and the spectra H to z, contiguous."""
        B, D, L = v.shape
        arguments = (v, H, z, B, L, *v.stride()[:2])
        self._built.plain.launch("convolve", "pppiill", arguments, grid=(B * D, 1), **self._block)

    def adjoint(self, dz: Tensor, H: Tensor, dv: Tensor, dZ: Tensor, channels: slice) -> None:
        """Write the gradient of v and the spectra of dz (D, B, n), both of some channels."""
        dz, H, dv = dz[:, channels], H[channels], dv[:, channels]
        B, D, L = dz.shape
        arguments = (dz, H, dv, dZ, B, L, *dz.stride()[:2], dv.stride(0))
        self._built.plain.launch("adjoint", "ppppiilll", arguments, grid=(B * D, 1), **self._block)

    def correlate(self, dZ: Tensor, v: Tensor, dh: Tensor) -> None:
        """Write the gradient of the filters to dh (D, K), from spectra dZ (D, B, n)."""
        (B, D, L), K = v.shape, dh.shape[1]
        parts = max(1, min(B, -(-2 * self._processors // D)))  # two blocks a processor at least
        sums = self.empty(parts if parts > 1 else 0, D)
        arguments = (dZ, v, sums, dh, B, L, *v.stride()[:2], K, 1.0 / self.n)
        self._built.plain.launch(
            "correlate", "ppppiillif", arguments, grid=(D, parts), **self._block
        )
        if parts > 1:
            finishing = (sums, dh, parts, K, L, 1.0 / self.n)
            self._built.plain.launch("finish", "ppiiif", finishing, grid=(D, 1), **self._block)

    def mix(
        self,
        around: Projections,
        skip: Tensor,
        H: Tensor,
        w: Tensor,
        z: Tensor,
        y: Tensor,
        late: int,
    ) -> None:
        """Write w, z, both contiguous, and y, each (B, D, L); of the last tokens z alone."""
        (B, D, L), width = y.shape, z.shape[2]
        strides = (*around.p.stride()[:2], *y.stride()[:2])
        arguments = (*around, skip, H, w, z, y, B, D, L - late, late, width, *strides)
        types = "p" * 9 + "iiiiillll"
        self._built.mixing.launch("mix", types, arguments, grid=(B * D, 1), **self._block)

    def mix_adjoint(
        self,
        around: Projections,
        dy: Tensor,
        last: Tensor,
        H: Tensor,
        dw: Tensor,
        dZ: Tensor,
        channels: slice,
    ) -> None:
        """Write the gradient of w, and the spectra of dz, whose last tokens are given."""
        (B, D, L), late, width = dy.shape, last.shape[2], dw.shape[2]
        strides = (*around.p.stride()[:2], *dy.stride()[:2])
        sizes = channels.start, B, D, L - late, late, width
        self._built.mixing.launch(
            "mix_adjoint",
            "p" * 9 + "iiiiiillll",
            (*around, dy, last, H, dw, dZ, *sizes, *strides),
            grid=(B * (channels.stop - channels.start), 1),
            **self._block,
        )


@cache
def _whole(n: int, dtype: torch.dtype, device: torch.device) -> _Whole:
    return _Whole(n, dtype, device)


def forward(v: Tensor, h: Tensor, n: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return h * v (B, D, L) for float32 filters h (D, K), with transforms of length n.

    And what to keep for the backward. For L > n both lack what `corners` adds.
    """
    whole = _whole(n, v.dtype, v.device)
    z, H = torch.empty(v.shape, dtype=v.dtype, device=v.device), whole.spectra(h)
    whole.convolve(v, H, z)
    return z, (H,)


def backward(
    dz: Tensor, v: Tensor, h: Tensor, n: int, kept: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """Return the gradients of v and h."""
    (H,) = kept
    whole = _whole(n, v.dtype, v.device)
    dv, dh = (
        torch.empty(v.shape, dtype=v.dtype, device=v.device),
        empty_gradient(h.shape, v.shape[2], v.device),
    )
    for channels in _chunks(v, n):
        dZ = _spectra(whole, v, channels)
        whole.adjoint(dz, H, dv, dZ, channels)
        whole.correlate(dZ, v[:, channels], dh[channels])
    return dv, dh


def mix_forward(
    around: Projections, skip: Tensor, h: Tensor, y: Tensor, late: int, n: int, keep: bool
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Write y; return z, w and what to keep, as in `mechbench.ops.hyena_mix`.

    Of the `late` last tokens z alone is made, without what `corners` adds.
    """
    whole = _whole(n, y.dtype, y.device)
    w, z = empty_pieces(y), empty_pieces(y)
    H = whole.spectra(h)
    whole.mix(around, skip, H, w, z, y, late)
    return z, w, (H, w) if keep else ()


def mix_backward(
    around: Projections, dy: Tensor, late: Tensor, n_taps: int, n: int, kept: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """Return the gradients of w and of the filters (D, n_taps), without what `corners` adds.

    `late` (B, D, R) is dz of the last tokens.
    """
    H, w = kept
    _, D, L = dy.shape
    whole, rows = _whole(n, dy.dtype, dy.device), w[..., : L - late.shape[2]]
    dw, dh = torch.empty_like(w), empty_gradient((D, n_taps), L, dy.device)
    for channels in _chunks(rows, n):
        dZ = _spectra(whole, rows, channels)
        whole.mix_adjoint(around, dy, late, H, dw, dZ, channels)
        whole.correlate(dZ, rows[:, channels], dh[channels])
    return dw, dh


def _chunks(v: Tensor, n: int) -> Iterator[slice]:
    return chunks(v, n, CHUNK_BYTES // COMPLEX_BYTES)


def _spectra(whole: _Whole, v: Tensor, channels: slice) -> Tensor:
    return whole.empty(channels.stop - channels.start, len(v))
