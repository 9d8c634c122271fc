"""Long convolution of rows that no block holds: columns, lines, columns (`cuda/steps.cu`)."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from mechbench.ops.fft_conv.cuda import COMPLEX_BYTES, chunks, compiled, reals
from mechbench.ops.kernels.nvrtc import Module

CHUNK_BYTES = 1 << 28  # size of one complex buffer: channels are taken in chunks
_RADICES = {64: (4, 16), 128: (8, 16), 256: (16, 16), 512: (8, 4, 16), 1024: (8, 8, 16)}
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
    """The kernels for one length, with the sizes of their blocks."""

    def __init__(self, n: int, dtype: torch.dtype, device: torch.device) -> None:
        self.n = n
        self.rows, self.columns = _SPLITS[n]
        self.lines = _LINE_THREADS * _ELEMENTS // self.columns  # lines a block
        self.module: Module = compiled(
            "steps.cu",
            device,
            ROWS=",".join(map(str, _RADICES[self.rows])),
            COLUMNS=",".join(map(str, _RADICES[self.columns])),
            WIDTH=_WIDTH,
            LINES=self.lines,
            REAL=reals(dtype),
        )

    def split(self, x: Tensor, name: str, scale: float = 1.0) -> Tensor:
        """Return x (B, D, L) as transformed columns, (B, D, n)."""
        B, D, _ = x.shape
        lines = torch.empty(B, D, self.n, dtype=torch.complex64, device=x.device)
        self._columns(name, x, lines, x, lines, scale)
        return lines

    def join(self, lines: Tensor, out: Tensor, name: str, scale: float = 1.0) -> None:
        """Write what `lines` (B, D, n) transform back to, to `out` (B, D, L)."""
        self._columns(name, lines, out, out, lines, scale)

    def _columns(
        self, name: str, source: Tensor, target: Tensor, x: Tensor, lines: Tensor, scale: float
    ) -> None:
        B, D, L = x.shape
        self.module.launch(
            name,
            "ppiillf",
            (source, target, D, L, *x.stride()[:2], scale),
            grid=(self.columns // _WIDTH, B * D),
            threads=_WIDTH * self.rows // _ELEMENTS,
            shared=COMPLEX_BYTES * self.rows * _WIDTH,
        )

    def _lines(self, name: str, types: str, *arguments: object, channels: int) -> None:
        self.module.launch(
            name,
            types,
            arguments,
            grid=(self.rows // self.lines, channels),
            threads=_LINE_THREADS,
            shared=COMPLEX_BYTES * self.lines * (self.columns + self.columns // 16),
        )

    def multiply_(self, lines: Tensor, filters: Tensor, *, adjoint: bool) -> None:
        """Multiply in the domain of frequencies, in place."""
        B, D, _ = lines.shape
        self._lines("multiply_lines", "ppii", lines, filters, B, int(adjoint), channels=D)

    def correlate_(self, dz: Tensor, v: Tensor) -> Tensor:
        """Return sums over the batch of dz times the conjugate of v, (1, D, n), kept in v."""
        B, D, _ = dz.shape
        self._lines("correlate_lines", "ppi", dz, v, B, channels=D)
        return v[:1]


@cache
def _steps(n: int, dtype: torch.dtype, device: torch.device) -> _Steps:
    return _Steps(n, dtype, device)


def shared_bytes(n: int) -> int:
    """Return the most shared memory that a block needs for transforms of length n."""
    rows, _ = _SPLITS[n]
    return COMPLEX_BYTES * rows * _WIDTH


def steps_forward(v: Tensor, h: Tensor, n: int) -> Tensor:
    """Return h * v (B, D, L) for float32 filters h (D, K), with transforms of length n >= L."""
    steps = _steps(n, v.dtype, v.device)
    z = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    for channels in chunks(v, n, CHUNK_BYTES):
        filters = steps.split(h[None, channels, : v.shape[2]], "filter_columns", 1.0 / n)
        lines = steps.split(v[:, channels], "columns")
        steps.multiply_(lines, filters, adjoint=False)
        steps.join(lines, z[:, channels], "uncolumns")
    return z


def steps_backward(dz: Tensor, v: Tensor, h: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the gradients of v and h."""
    L = v.shape[2]
    steps = _steps(n, v.dtype, v.device)
    dv = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    dh = torch.zeros_like(h) if h.shape[1] > L else torch.empty_like(h)
    for channels in chunks(v, n, CHUNK_BYTES):
        gradients = steps.split(dz[:, channels], "columns")
        sums = steps.correlate_(gradients, steps.split(v[:, channels], "columns"))
        steps.join(sums, dh[None, channels, :L], "filter_uncolumns", 1.0 / n)
        filters = steps.split(h[None, channels, :L], "filter_columns", 1.0 / n)
        steps.multiply_(gradients, filters, adjoint=True)
        steps.join(gradients, dv[:, channels], "uncolumns")
    return dv, dh
