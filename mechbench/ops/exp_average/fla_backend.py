"""`decayed_average` with the recurrent kernel of flash-linear-attention, `fla.ops.rwkv4`.

It goes through a sequence token by token, one program for a sequence and 128 channels. What it
keeps for the backward has the dtype of its keys, hence float32 here. The decays are above 0: it
takes their logarithms.
"""

from __future__ import annotations

from torch import Tensor

from mechbench.ops.fla import refused

_NEVER = -1e38  # exponent of the empty sums before the first token


def unsupported(k: Tensor, v: Tensor, bonus: Tensor, decay: Tensor) -> str | None:
    """Say why these inputs are refused: the package, CUDA and at most 32 bits are needed."""
    return refused(k, v, bonus, decay)


def average(k: Tensor, v: Tensor, bonus: Tensor, decay: Tensor) -> Tensor:
    """Compute `mechbench.ops.decayed_average` on inputs that are supported."""
    from fla.ops.rwkv4 import fused_recurrent_rwkv4

    keys, values, w, u = (x.float() for x in (k, v, decay, bonus))
    sums = keys.new_zeros(len(k), 3, 1, k.shape[2])  # numerator, denominator, their exponent
    sums[:, 2] = _NEVER
    y, _ = fused_recurrent_rwkv4(w=w.log(), u=u, k=keys, v=values, state=sums)
    out: Tensor = y.to(v.dtype)
    return out
