"""Sine and cosine to float32's precision, without the detour that libraries take for huge angles.

That detour is a branch for each number, and its code is longer than the rest of a kernel.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _sine_beyond(x, turns, TURN: tl.constexpr):
    """Return the sine of x - (k + TURN) pi for the whole number k next to turns, negated if odd.

    k comes from the last bits of turns + 1.5 * 2^23. Pi has three parts here, the first two of them
    short enough for exact products with k.
    """
    shifted = turns + 12582912.0
    k = shifted - 12582912.0 + TURN
    r = x - k * 3.140625
    r -= k * 0.0009675025939941406
    r -= k * 1.5099580252808664e-07
    # Angles from 10^7 on, spaced by a radian or more in float32, leave no phase, only a bound.
    r = tl.where(tl.abs(r) < 2.0, r, x - x)
    z = r * r
    p = z * 2.599751496745739e-06 - 0.00019806479394901544  # least error up to half of pi
    p = (p * z + 0.008333015255630016) * z - 0.16666656732559204
    sign = shifted.to(tl.int32, bitcast=True) << 31
    return ((r + r * z * p).to(tl.int32, bitcast=True) ^ sign).to(tl.float32, bitcast=True)


@triton.jit
def sine(x):
    """Return sin x to 2e-7 for |x| up to 25,000, as for a float32 next to x beyond."""
    return _sine_beyond(x, x * 0.3183098861837907, 0.0)


@triton.jit
def cosine(x):
    """Return cos x to 3e-7 for |x| up to 25,000, as for a float32 next to x beyond."""
    return -_sine_beyond(x, x * 0.3183098861837907 - 0.5, 0.5)
