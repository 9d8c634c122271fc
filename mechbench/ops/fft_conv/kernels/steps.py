"""Long convolution of rows that no block holds: columns, lines, columns (`cuda/steps.cu`).

Rows of half types stand in half precision between the steps, scaled: an error below theirs.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from mechbench.ops.fft_conv.core import COMPLEX_BYTES, chunks
from mechbench.ops.fft_conv.cuda import compiled, reals
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


class _Lines(NamedTuple):
    """Rows between two steps, and the scale of each block that wrote them, where it has one."""

    numbers: Tensor  # (B, D, n): complex64, or a half for each part, as int32
    scales: Tensor | None


class _Steps:
    """The kernels for one length, with the sizes of their blocks."""

    def __init__(self, n: int, dtype: torch.dtype, device: torch.device) -> None:
        self.n = n
        self.rows, self.columns = _SPLITS[n]
        self.lines = _LINE_THREADS * _ELEMENTS // self.columns  # lines a block
        self.halved = dtype != torch.float32
        self.module: Module = compiled(
            "steps.cu",
            device,
            ROWS=",".join(map(str, _RADICES[self.rows])),
            COLUMNS=",".join(map(str, _RADICES[self.columns])),
            WIDTH=_WIDTH,
            LINES=self.lines,
            HALVED=int(self.halved),
            REAL=reals(dtype),
        )

    def _scales(self, rows: int, blocks: int, like: Tensor) -> Tensor | None:
        return torch.empty(rows, blocks, device=like.device) if self.halved else None

    def split(self, x: Tensor, name: str, scale: float = 1.0) -> _Lines:
        """Return x (B, D, L) as transformed columns."""
        B, D, _ = x.shape
        dtype = torch.int32 if self.halved else torch.complex64
        numbers = torch.empty(B, D, self.n, dtype=dtype, device=x.device)
        lines = _Lines(numbers, self._scales(B * D, self.columns // _WIDTH, x))
        self._columns(name, "ppp", (x, *lines), x, scale)
        return lines

    def join(self, lines: _Lines, out: Tensor, name: str, scale: float = 1.0) -> None:
        """Write what `lines` transform back to, to `out` (B, D, L)."""
        self._columns(name, "ppp", (*lines, out), out, scale)

    def _columns(
        self, name: str, types: str, data: tuple[object, ...], x: Tensor, scale: float
    ) -> None:
        B, D, L = x.shape
        self.module.launch(
            name,
            f"{types}iillf",
            (*data, D, L, *x.stride()[:2], scale),
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

    def multiplied(self, lines: _Lines, filters: _Lines) -> _Lines:
        """Return the product in the domain of frequencies, in the place of `lines`."""
        B, D, _ = lines.numbers.shape
        scales = self._scales(B * D, self.rows // self.lines, lines.numbers)
        self._lines("multiply_lines", "pppppi", *lines, scales, *filters, B, channels=D)
        return _Lines(lines.numbers, scales)

    def backward(self, dz: _Lines, v: _Lines, filters: _Lines) -> tuple[_Lines, _Lines]:
        """Return the lines of the gradients of v and of the filters, in the place of dz and v."""
        B, D, _ = v.numbers.shape
        blocks = self.rows // self.lines
        dv_scales, dh_scales = (self._scales(n, blocks, v.numbers) for n in (B * D, D))
        arguments = (*dz, dv_scales, *v, dh_scales, *filters, B)
        self._lines("backward_lines", "ppppppppi", *arguments, channels=D)
        return _Lines(dz.numbers, dv_scales), _Lines(v.numbers[:1], dh_scales)


@cache
def _steps(n: int, dtype: torch.dtype, device: torch.device) -> _Steps:
    return _Steps(n, dtype, device)


def shared_bytes(n: int) -> int:
    """Return the most shared memory that a block needs for transforms of length n."""
    rows, _ = _SPLITS[n]
    return COMPLEX_BYTES * rows * _WIDTH


def forward(v: Tensor, h: Tensor, n: int) -> Tensor:
    """Return h * v (B, D, L) for float32 filters h (D, K), with transforms of length n >= L."""
    steps, L = _steps(n, v.dtype, v.device), v.shape[2]
    z = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    for channels in chunks(v, n, CHUNK_BYTES):
        filters = steps.split(h[None, channels, :L], "filter_columns", 1.0 / n)
        lines = steps.split(v[:, channels], "columns")
        steps.join(steps.multiplied(lines, filters), z[:, channels], "uncolumns")
    return z


def backward(dz: Tensor, v: Tensor, h: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the gradients of v and h."""
    steps, L = _steps(n, v.dtype, v.device), v.shape[2]
    dv = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    dh = torch.zeros_like(h) if h.shape[1] > L else torch.empty_like(h)
    for channels in chunks(v, n, CHUNK_BYTES):
        filters = steps.split(h[None, channels, :L], "filter_columns", 1.0 / n)
        gradients, lines = (steps.split(x[:, channels], "columns") for x in (dz, v))
        products, sums = steps.backward(gradients, lines, filters)
        steps.join(products, dv[:, channels], "uncolumns")
        steps.join(sums, dh[None, channels, :L], "filter_uncolumns", 1.0 / n)
    return dv, dh
