"""What half precision shows, looked at again in float32: a look-ahead, or rounding?

Rounding in half precision is not always less than what is watched. A long convolution that keeps
spectra in it, as ours did, is off by about a rounding of its largest output at every position.
Where early outputs are far smaller, as those of a filter whose first taps are, a norm behind it
makes that a third of the logits (seen of trained Hyenas at 2,048 and 8,192 tokens in bfloat16, and
emulated).

So a fault that only half precision shows, after training, is dropped where the same weights have
none in float32, and no operator on its own, on the inputs that it gets, does more than round: its
early outputs move by less than the rounding of its largest, and of gradients the same. A kernel
that is wrong in half precision alone, say by its mask, moves them by more; where its outputs grow
so much that it does not, the look before training, with no such excuse, has found it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mechbench.training.evaluation import autocast
from mechbench.training.gate.contract import overheard
from mechbench.training.gate.lookahead import (
    Fault,
    Function,
    by_gradient,
    movement,
    operator_function,
    repeating,
)
from mechbench.training.memory import is_out_of_memory

NOT_CAUSAL = ("ahead", "mixed", "unstable")
_ROUNDING = 0.5  # of the spacing of numbers at an operator's largest output: what storing it loses


def second_look(
    fault: Fault | None,
    judge: Callable[[], Fault | None],
    model: nn.Module,
    inputs: Tensor,
    at: Tensor,
    seed: int,
    dtype: str,
) -> Fault | None:
    """Return what is wrong with a trained model after a look in float32, if kernels run in it.

    Args:
        fault: found in half precision.
        judge: what found it, for float32.
        model: that was judged.
        inputs: that it was judged on.
        at: (passes, B), from `cuts`.
        seed: of the changes.
        dtype: the half precision.
    """
    if fault is not None and fault.kind not in ("ahead", "unstable"):
        return fault
    try:
        exact = judge()
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return fault
    if fault is None:
        return exact if exact is not None and exact.kind in NOT_CAUSAL else None
    if exact is not None:
        return fault
    bound = _ROUNDING * torch.finfo(getattr(torch, dtype)).eps
    ahead = _ahead_by_gradient if fault.gradient else movement
    with autocast(inputs.device.type, dtype):
        for operator, u in _reached(model, inputs):
            if ahead(repeating(operator_function(operator, u), seed), at, seed) > bound:
                return fault
    return None


def _ahead_by_gradient(run: Function, at: Tensor, seed: int) -> float:
    found = by_gradient(run, at[-1], seed)
    return 0.0 if found is None else found.gradient


@torch.no_grad()
def _reached(model: nn.Module, inputs: Tensor) -> list[tuple[nn.Module, Tensor]]:
    """Return the operators of a model, each with the input that it gets."""
    operators = [block.operator for block in model.blocks]  # type: ignore[union-attr]
    reached: list[Tensor] = []
    with overheard(operators, lambda u: reached.append(u.clone())):
        model(inputs)
    return list(zip(operators, reached, strict=True))
