"""Direct convolution of short sequences (`fft_conv.kernels.toeplitz`), without a transform.

The work grows with L^2, but it is matrix products on tensor cores, and any L costs in proportion.
Taps are rounded to 16 bits, outputs to the type of the input.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mechbench.ops.triton import unavailable

PRIORITY = 30
ANY_SEQLEN = True
TAILS = False
MAX_SEQLEN = 4224  # on an H100 as fast as transforms at 4,096; a task adds a few tokens


def unsupported(u: Tensor, h: Tensor) -> str | None:
    """Say why these inputs are refused: a half type, a short sequence and Ampere are needed."""
    reason = unavailable(u, h)
    if reason is not None:
        return reason
    if u.dtype not in (torch.bfloat16, torch.float16):
        return f"the input is {u.dtype}: products are of bfloat16 or float16"
    if u.shape[-1] > MAX_SEQLEN:
        return f"{u.shape[-1]} tokens: above {MAX_SEQLEN} transforms cost less"
    if u.is_cuda and torch.cuda.get_device_capability(u.device)[0] < 8:
        return "the GPU has no tensor cores for bfloat16: expected compute capability 8.0 or later"
    return None


def core_forward(v: Tensor, h: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return h * v; nothing is kept for the backward."""
    from mechbench.ops.fft_conv.kernels.toeplitz import toeplitz_forward

    return toeplitz_forward(v, h), ()


def core_backward(
    dz: Tensor, v: Tensor, h: Tensor, kept: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """Return the gradients of v and h."""
    from mechbench.ops.fft_conv.kernels.toeplitz import toeplitz_backward

    return toeplitz_backward(dz, v, h)
