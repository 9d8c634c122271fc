"""Our own transforms in CUDA C++ (`fft_conv.cuda`): twist, product and transforms in one pass.

Up to 8,192 tokens a row is read once and written once; above, its transform takes two passes
through memory. All in float32, also between two kernels: half types would save a tenth of a step at
131,072 tokens by halves there, and their rounding would have taps for later inputs. The gates of an
order-2 Hyena are computed on the way in and out.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from mechbench.ops.fft_conv.contract import Projections
from mechbench.ops.fft_conv.core import split
from mechbench.ops.fft_conv.kernels import steps, whole
from mechbench.ops.fft_conv.kernels.empty import empty_pieces
from mechbench.ops.kernels import nvrtc
from mechbench.ops.triton import beside, interpreted, unavailable

PRIORITY = 40
ANY_SEQLEN = False
TAILS = True
LEAST, MOST = 1 << 11, 1 << 20  # lengths of transforms
_LEAST_HALF = 1760  # tokens: in half types fewer cost less by the direct sum
_PIECE = 8  # numbers that a thread reads at once where it computes gates
_MOST_PADDING = 1.75  # above it a transform of another length by cuFFT costs less


def _length(L: int) -> int:
    """Return the length of transforms for L tokens, of which the last few may stand beyond it."""
    return 1 << (split(L) - 1).bit_length()


def unsupported(u: Tensor, h: Tensor) -> str | None:
    """Say why these inputs are refused: CUDA, NVRTC and a length near a power of two are needed."""
    reason = unavailable(u, h)
    if reason is None and interpreted():
        reason = "Triton's interpreter runs no CUDA C++"
    reason = reason or nvrtc.missing()
    if reason is not None:
        return reason
    L, n = split(u.shape[-1]), _length(u.shape[-1])
    if not LEAST <= n <= MOST:
        return f"a transform of {n}: expected {LEAST} to {MOST}"
    if u.dtype != torch.float32 and L < _LEAST_HALF:
        return f"{L} tokens of {u.dtype}: below {_LEAST_HALF} the direct sum costs less"
    if n > _MOST_PADDING * L:
        return f"{L} tokens are too few for a transform of {n}"
    properties = torch.cuda.get_device_properties(u.device)
    most = getattr(properties, "shared_memory_per_block_optin", properties.shared_memory_per_block)
    needed = _kernels(n).shared_bytes(n)
    if needed > most:
        return f"a block has {most} bytes of shared memory, expected {needed}"
    return None


def _kernels(n: int) -> ModuleType:
    """Return the module for transforms of length n."""
    return whole if n in whole.LENGTHS else steps


def core_forward(v: Tensor, h: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return h * v, and what is kept of the filters."""
    v, h, n = beside(v), h.float().contiguous(), _length(v.shape[-1])
    z, kept = _kernels(n).forward(v, h, n)
    late = v[..., n:]
    if late.shape[2]:
        from mechbench.ops.fft_conv.kernels.corners import add_late_outputs, corner_taps

        add_late_outputs(v, late, corner_taps(h, n, late.shape[2]), z[..., n:])
    return z, kept


def core_backward(
    dz: Tensor, v: Tensor, h: Tensor, kept: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """Return the gradients of v and h."""
    dz, v, taps, n = beside(dz), beside(v), h.float().contiguous(), _length(v.shape[-1])
    dv, dh = _kernels(n).backward(dz, v, taps, n, kept)
    late = v[..., n:]
    if late.shape[2]:
        from mechbench.ops.fft_conv.kernels.corners import add_late_gradients, corner_taps

        ends = corner_taps(taps, n, late.shape[2])
        add_late_gradients(dz[..., n:], v, late, ends, dv, dh, n)
    return dv, dh.to(h.dtype)


def mixes(p: Tensor) -> int:
    """Return how many tokens one transform takes, if rows are whole vectors."""
    L = p.shape[2]
    n = min(L, _length(L))
    return n if n % _PIECE == 0 and _in_pieces(p) else 0


def mix_forward(
    around: Projections, skip: Tensor, h: Tensor, y: Tensor, late: Tensor, keep: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Write y; return z, and what is kept."""
    n, h, R = _length(y.shape[-1]), h.float().contiguous(), late.shape[2]
    z, w, kept = _kernels(n).mix_forward(around, skip, h, y, R, n, keep)
    if R == 0:
        return z, kept
    from mechbench.ops.fft_conv.kernels.corners import add_late_outputs, corner_taps

    early, taps = w[..., :R].clone(), corner_taps(h, n, R)
    add_late_outputs(early, late, taps, z[..., n : n + R])
    return z, (early, late, taps, *kept)


def mix_backward(
    around: Projections, dy: Tensor, late: Tensor, n_taps: int, kept: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """Return the gradients of w and h."""
    n, R, late = _length(dy.shape[-1]), late.shape[2], late.contiguous()
    rest = kept[3:] if R else kept
    dw, dh = _kernels(n).mix_backward(around, _pieces(dy), late, n_taps, n, rest)
    if R:
        from mechbench.ops.fft_conv.kernels.corners import add_late_gradients

        early_w, late_w, taps = kept[:3]
        add_late_gradients(late, early_w, late_w, taps, dw, dh, n)
    return dw, dh


def _in_pieces(x: Tensor) -> bool:
    """Return whether each row of x can be read in pieces."""
    steps_between = (step for n, step in zip(x.shape[:2], x.stride()[:2], strict=True) if n > 1)
    return x.data_ptr() % 16 == 0 and all(step % _PIECE == 0 for step in steps_between)


def _pieces(x: Tensor) -> Tensor:
    """Return x so that each row can be read in pieces."""
    if _in_pieces(x):
        return x
    rows = empty_pieces(x)[..., : x.shape[2]]
    rows.copy_(x)
    return rows
