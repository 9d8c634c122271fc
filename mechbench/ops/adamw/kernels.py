"""AdamW on all parameters of a model in one launch.

PyTorch's fused update takes launches for each group of parameters, and gives a block of threads
65,536 numbers, so that a small model keeps few multiprocessors busy.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024  # numbers a program updates


@triton.jit
def _update_kernel(
    addresses, starts, lengths, owners, groups, steps, rates, decays, grads, means, squares, norm,
    max_norm, BETA1: tl.constexpr, BETA2: tl.constexpr, LOG1: tl.constexpr, LOG2: tl.constexpr,
    EPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    inside = i < tl.load(lengths + block)
    p_at = tl.load(addresses + block).to(tl.pointer_type(tl.float32)) + i
    at = tl.load(starts + block) + i
    group = tl.load(groups + block)
    rate, decay = tl.load(rates + group), tl.load(decays + group)
    # In float64: little is left of 1 - 0.98 in float32.
    step = tl.load(steps + tl.load(owners + block)).to(tl.float64)
    pace = rate / (1.0 - tl.exp(step * LOG1)).to(tl.float32)
    root = tl.sqrt((1.0 - tl.exp(step * LOG2)).to(tl.float32))
    clip = max_norm / (tl.load(norm) + 1e-6)
    clip = tl.minimum(clip, 1.0, propagate_nan=tl.PropagateNan.ALL)
    g = tl.load(grads + at, mask=inside, other=0.0) * clip
    m = tl.load(means + at, mask=inside, other=0.0)
    v = tl.load(squares + at, mask=inside, other=0.0)
    p = tl.load(p_at, mask=inside, other=0.0)
    m += (g - m) * (1.0 - BETA1)
    v = v * BETA2 + g * g * (1.0 - BETA2)
    p -= p * (rate * decay)
    p -= pace * m / (tl.sqrt(v) / root + EPS)
    tl.store(means + at, m, mask=inside)
    tl.store(squares + at, v, mask=inside)
    tl.store(p_at, p, mask=inside)


def update_(
    blocks: dict[str, Tensor],
    steps: Tensor,
    rates: Tensor,
    decays: Tensor,
    moments: tuple[Tensor, Tensor],
    grads: Tensor,
    norm: Tensor,
    max_norm: float,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """Update parameters and moments in place.

    Args:
        blocks: of every program the "addresses" of its part of a parameter (int64), its "starts"
            in the flat buffers (int64), "lengths", and which parameter ("owners") of which group
            ("groups") it is (int32).
        steps: (n parameters,) float32, this step counted.
        rates: (n groups,) learning rates.
        decays: (n groups,) weight decays.
        moments: exp_avg and exp_avg_sq, flat.
        grads: flat, before clipping.
        norm: of all gradients.
        max_norm: at which they are clipped.
        betas: of AdamW.
        eps: of AdamW.
    """
    keys = ("addresses", "starts", "lengths", "owners", "groups")
    _update_kernel[(len(blocks["starts"]),)](
        *(blocks[key] for key in keys), steps, rates, decays, grads, *moments, norm, max_norm,
        *betas, *map(math.log, betas), eps, BLOCK=BLOCK,
    )  # fmt: skip
