"""Long convolution of rows that no block holds: columns, lines, columns (`cuda/steps.cu`).

Numbers stand in complex64 between the steps. What the backward needs again it computes again.
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
from mechbench.ops.kernels.nvrtc import Module

CHUNK_BYTES = 1 << 28  # size of one complex buffer: channels are taken in chunks
_RADICES = {64: (4, 16), 128: (8, 16), 256: (16, 16), 512: (16, 2, 16), 1024: (8, 8, 16)}
# Length of the transform: numbers of lines and of columns.
_SPLITS = {
    1 << 14: (256, 64),
    1 << 15: (256, 128),
    1 << 16: (256, 256),
    1 << 17: (256, 512),
    1 << 18: (256, 1024),
    1 << 19: (512, 1024),
    1 << 20: (1024, 1024),
}
LENGTHS = tuple(_SPLITS)
_ELEMENTS = 16  # a thread
_WIDTH = 16  # columns a block
_LINE_THREADS = 128  # a block that transforms lines


class _Steps:
    """The kernels for one length, with the sizes of their blocks. Lines are (B, D, n)."""

    def __init__(self, n: int, dtype: torch.dtype, device: torch.device) -> None:
        self.n, self.device = n, device
        self.rows, self.columns = _SPLITS[n]
        self.lines = _LINE_THREADS * _ELEMENTS // self.columns  # lines a block
        self._built = Modules(
            "steps",
            dtype,
            device,
            ROWS=",".join(map(str, _RADICES[self.rows])),
            COLUMNS=",".join(map(str, _RADICES[self.columns])),
            WIDTH=_WIDTH,
            LINES=self.lines,
        )

    def _empty(self, B: int, D: int) -> Tensor:
        """Return lines for columns to be written to."""
        return torch.empty(B, D, self.n, dtype=torch.complex64, device=self.device)

    def _columns(
        self, module: Module, name: str, types: str, arguments: tuple[object, ...], rows: int
    ) -> None:
        module.launch(
            name,
            types,
            arguments,
            grid=(self.columns // _WIDTH, rows),
            threads=_WIDTH * self.rows // _ELEMENTS,
            shared=COMPLEX_BYTES * self.rows * _WIDTH,
        )

    def split(self, x: Tensor, name: str, scale: float = 1.0) -> Tensor:
        """Return x (B, D, L) as transformed columns; what is beyond n are imaginary parts."""
        B, D, L = x.shape
        lines = self._empty(B, D)
        arguments = (x, lines, D, L, *x.stride()[:2], scale)
        self._columns(self._built.plain, name, "ppiillf", arguments, B * D)
        return lines

    def join(self, lines: Tensor, out: Tensor, name: str, scale: float = 1.0) -> None:
        """Write what `lines` transform back to, to `out` (B, D, L)."""
        B, D, L = out.shape
        arguments = (lines, out, D, L, *out.stride()[:2], scale)
        self._columns(self._built.plain, name, "ppiillf", arguments, B * D)

    def filters(self, h: Tensor, L: int) -> Tensor:
        """Return filters h (D, K) as transformed columns, divided by n."""
        return self.split(h[None, :, : min(L, self.n)], "filter_columns", 1.0 / self.n)

    def _lines(self, name: str, types: str, *arguments: object, channels: int) -> None:
        self._built.plain.launch(
            name,
            types,
            arguments,
            grid=(self.rows // self.lines, channels),
            threads=_LINE_THREADS,
            shared=COMPLEX_BYTES * self.lines * (self.columns + self.columns // 16),
        )

    def multiply(self, lines: Tensor, filters: Tensor, *, keep: bool = False) -> None:
        """Multiply lines, in place, by filters in the domain of frequencies.

        The filters become what the backward takes, if they are to be kept.
        """
        B, D = len(lines), filters.shape[1]
        arguments = (lines, filters, int(keep), B)
        self._lines("multiply_lines", "ppii", *arguments, channels=D)

    def spectra(self, h: Tensor, L: int) -> Tensor:
        """Return filters h (D, K) as the backward takes them."""
        filters = self.filters(h, L)
        self.multiply(filters[:0], filters, keep=True)
        return filters

    def backward(self, dz: Tensor, v: Tensor, filters: Tensor) -> Tensor:
        """Turn dz to lines of the gradients of v; return those of the filters' gradients."""
        B, D, _ = v.shape
        dh = torch.empty_like(v[:1])
        self._lines("backward_lines", "ppppi", dz, v, filters, dh, B, channels=D)
        return dh

    def gradients(self, dz: Tensor, v: Tensor, filters: Tensor, dv: Tensor, dh: Tensor) -> None:
        """Write the gradients of v (B, D, L), L <= n, and of the filters (D, K), from lines."""
        sums = self.backward(dz, v, filters)
        self.join(dz, dv, "uncolumns")
        self.join(sums, dh[None, :, : dv.shape[2]], "filter_uncolumns", 1.0 / self.n)

    def gated(self, around: Projections, w: Tensor, L: int, channels: slice) -> Tensor:
        """Write some channels of w, L tokens; return them as transformed columns."""
        (B, D, width), rows = w.shape, channels.stop - channels.start
        lines = self._empty(B, rows)
        sizes = channels.start, rows, D, L, width
        arguments = (*around, w, lines, *sizes, *around.p.stride()[:2])
        self._columns(self._built.mixing, "gated_columns", "p" * 6 + "iiiiill", arguments, B * rows)
        return lines

    def gradient(self, around: Projections, dy: Tensor, last: Tensor, channels: slice) -> Tensor:
        """Return some channels of dz, whose last tokens are given, as transformed columns."""
        (B, D, L), rows, late = dy.shape, channels.stop - channels.start, last.shape[2]
        lines = self._empty(B, rows)
        sizes = channels.start, rows, D, L - late, late
        strides = (*around.p.stride()[:2], *dy.stride()[:2])
        arguments = (*around, dy, last, lines, *sizes, *strides)
        types = "p" * 7 + "iiiiillll"
        self._columns(self._built.mixing, "gradient_columns", types, arguments, B * rows)
        return lines

    def mixed(
        self,
        around: Projections,
        skip: Tensor,
        w: Tensor,
        lines: Tensor,
        z: Tensor,
        y: Tensor,
        late: int,
        channels: slice,
    ) -> None:
        """Write some channels of z and y, of the last tokens z alone, from the lines of z."""
        (B, D, L), rows, width = y.shape, channels.stop - channels.start, z.shape[2]
        sizes = channels.start, rows, D, L - late, late, width
        strides = (*around.p.stride()[:2], *y.stride()[:2])
        arguments = (*around, skip, w, lines, z, y, *sizes, *strides)
        types = "p" * 9 + "iiiiiillll"
        self._columns(self._built.mixing, "mixed_uncolumns", types, arguments, B * rows)


@cache
def _steps(n: int, dtype: torch.dtype, device: torch.device) -> _Steps:
    return _Steps(n, dtype, device)


def shared_bytes(n: int) -> int:
    """Return the most shared memory that a block needs for transforms of length n."""
    rows, _ = _SPLITS[n]
    return COMPLEX_BYTES * rows * _WIDTH


def forward(v: Tensor, h: Tensor, n: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return h * v (B, D, L) for float32 filters h (D, K), with transforms of length n.

    And what to keep for the backward. For L > n both lack what `corners` adds.
    """
    steps, L = _steps(n, v.dtype, v.device), v.shape[2]
    z = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    for channels in _chunks(v, n):
        filters = steps.filters(h[channels], L)
        lines = steps.split(v[:, channels, :n], "columns")
        steps.multiply(lines, filters)
        steps.join(lines, z[:, channels], "uncolumns")
    return z, ()


def backward(
    dz: Tensor, v: Tensor, h: Tensor, n: int, kept: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """Return the gradients of v and h."""
    steps = _steps(n, v.dtype, v.device)
    dv = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    dh = empty_gradient(h.shape, v.shape[2], v.device)
    for channels in _chunks(v, n):
        filters = steps.spectra(h[channels], v.shape[2])
        rows = dz[:, channels], v[:, channels, :n]
        gradients, lines = (steps.split(x, "columns") for x in rows)
        steps.gradients(gradients, lines, filters, dv[:, channels, :n], dh[channels])
    return dv, dh


def mix_forward(
    around: Projections, skip: Tensor, h: Tensor, y: Tensor, late: int, n: int, keep: bool
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Write y; return z, w and what to keep, as in `mechbench.ops.hyena_mix`.

    Of the `late` last tokens z alone is made, without what `corners` adds.
    """
    steps, L = _steps(n, y.dtype, y.device), y.shape[2] - late
    w, z = empty_pieces(y), empty_pieces(y)
    for channels in _chunks(y, n):
        filters = steps.filters(h[channels], L)
        lines = steps.gated(around, w, L, channels)
        steps.multiply(lines, filters)
        steps.mixed(around, skip, w, lines, z, y, late, channels)
    return z, w, (w, h) if keep else ()


def mix_backward(
    around: Projections, dy: Tensor, late: Tensor, n_taps: int, n: int, kept: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """Return the gradients of w and of the filters (D, n_taps), without what `corners` adds.

    `late` (B, D, R) is dz of the last tokens.
    """
    steps, L = _steps(n, dy.dtype, dy.device), dy.shape[2] - late.shape[2]
    dw, dh = empty_pieces(dy), empty_gradient((dy.shape[1], n_taps), dy.shape[2], dy.device)
    w, h = kept
    for channels in _chunks(dy, n):
        filters = steps.spectra(h[channels], L)
        lines = steps.split(w[:, channels, :L], "columns")
        gradients = steps.gradient(around, dy, late, channels)
        steps.gradients(gradients, lines, filters, dw[:, channels, :L], dh[channels])
    return dw, dh


def _chunks(v: Tensor, n: int) -> Iterator[slice]:
    return chunks(v, n, CHUNK_BYTES // COMPLEX_BYTES)
