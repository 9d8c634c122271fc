"""Values of arithmetic expressions modulo m, with brackets and products before sums."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mechbench.tasks.modulo import floats_for, reduce_

if TYPE_CHECKING:
    from torch import Tensor

PLUS, MINUS, TIMES = range(3)


def evaluate(values: Tensor, operators: Tensor, depth: Tensor, levels: int, modulus: int) -> Tensor:
    """Return (B, 1) int64: the values of expressions, in [0, modulus).

    Brackets are evaluated from the innermost level outwards, those of one level all at once: the
    product of each term is added to its bracket, which then is an operand of the level around it.

    Args:
        values: (B, N) integers in [0, modulus): the digits, and 0 for brackets, in the order in
            which they begin.
        operators: (B, N): MINUS or TIMES where that stands before, anything else where not. None
            stands before what begins a bracket.
        depth: (B, N) integers: in how many brackets each stands. What lies deeper than `levels` is
            no part of the expression.
        levels: the most brackets in which anything stands.
        modulus: m, at most 2,000.
    """
    import torch

    N = values.shape[1]
    dtype, most = floats_for(modulus * max(modulus, N))
    values, times = values.to(dtype, copy=True), (operators == TIMES).to(dtype)
    first = 1 - times  # of a term
    sign = first.sub((operators == MINUS).to(dtype), alpha=2)
    index = torch.arange(N, device=values.device, dtype=torch.int32)
    for level in range(levels, -1, -1):
        here = (depth == level).to(dtype)
        factors = (values * times).sub_(1).mul_(here).add_(1)  # 1 for what stands elsewhere
        product = _products(factors, first * here, modulus, most)
        terms = here.mul_(values).mul_(sign)
        terms[:, :-1].mul_(product[:, 1:])
        reduce_(terms, modulus)
        if level:
            around = torch.where(depth < level, index, -1).cummax(1).indices
            reduce_(values.scatter_add_(1, around, terms), modulus)
    return terms.sum(1, keepdim=True).long() % modulus


def _products(going: Tensor, stopped: Tensor, modulus: int, most: int) -> Tensor:
    """Return (B, N): the product of the factors from each place up to the next stop, by doubling.

    Args:
        going: (B, N) in [0, modulus): the factors, 0 at stops; overwritten, as the next.
        stopped: (B, N): 1 at stops, else 0.
        modulus: products are modulo this.
        most: up to this, numbers are exact.
    """
    import torch

    # Over `reach` places from each: the product without a stop, and that up to the first stop. One
    # of the two is 0. Both change places with spare tensors, as new ones would cost more than work.
    spare, bound, reach = (torch.empty_like(going), torch.empty_like(going)), modulus, 1
    while reach < going.shape[1]:
        if bound * bound > most:
            reduce_(going, modulus)
            reduce_(stopped, modulus)
            bound = modulus
        near = going[:, :-reach]
        torch.mul(near, going[:, reach:], out=spare[0][:, :-reach])
        torch.addcmul(stopped[:, :-reach], near, stopped[:, reach:], out=spare[1][:, :-reach])
        spare[0][:, -reach:] = going[:, -reach:]
        spare[1][:, -reach:] = stopped[:, -reach:]
        (going, stopped), spare = spare, (going, stopped)
        bound, reach = bound * bound, 2 * reach
    return reduce_(going.add_(stopped), modulus)
