"""cuFFT on twisted spectra (`fft_conv.kernels.twist`): fast without any extra package.

Channels are processed in chunks, so that the complex buffers stay small next to the inputs and, for
short enough sequences, fit into the L2 cache. For the backward only the inputs are kept; it
transforms them again.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mechbench.ops.fft_conv.backends.torch_backend import transform_length
from mechbench.ops.fft_conv.core import COMPLEX_BYTES, chunks
from mechbench.ops.triton import unavailable

PRIORITY = 10
ANY_SEQLEN = False
TAILS = False
CHUNK_BYTES = 1 << 28  # size of one complex buffer


def unsupported(u: Tensor, h: Tensor) -> str | None:
    """Say why these inputs are refused: CUDA, Triton and at most float32 are needed."""
    return unavailable(u, h)


def core_forward(v: Tensor, h: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return h * v; nothing is kept for the backward."""
    from mechbench.ops.fft_conv.kernels.twist import multiply_, twisted_fft, untwisted_ifft

    L = v.shape[-1]
    n = transform_length(L)
    z = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    for channels in chunks(v, n, CHUNK_BYTES // COMPLEX_BYTES):
        spectrum = twisted_fft(v[:, channels], n)
        multiply_(spectrum, twisted_fft(h[None, channels, :L], n)[0])
        untwisted_ifft(spectrum, z[:, channels])
    return z, ()


def core_backward(
    dz: Tensor, v: Tensor, h: Tensor, kept: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """Return the gradients of v and h."""
    from mechbench.ops.fft_conv.kernels.twist import correlate_, twisted_fft, untwisted_ifft

    L, K = v.shape[-1], h.shape[-1]
    n = transform_length(L)
    dv = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    dh = torch.empty(h.shape, dtype=h.dtype, device=h.device)
    if K > L:
        dh[:, L:] = 0
    for channels in chunks(v, n, CHUNK_BYTES // COMPLEX_BYTES):
        spectrum = twisted_fft(dz[:, channels], n)
        shared = correlate_(
            spectrum, twisted_fft(v[:, channels], n), twisted_fft(h[None, channels, :L], n)[0]
        )
        untwisted_ifft(spectrum, dv[:, channels])
        untwisted_ifft(shared[None], dh[None, channels, : min(K, L)])
    return dv, dh
