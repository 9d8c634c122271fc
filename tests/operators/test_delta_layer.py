from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mechbench.operators.delta_layer import DeltaLayer, Signals
from mechbench.ops import unit


class Layer(DeltaLayer):
    """Two keys a token, of which it uses the first; a gate of twos; no decay."""

    def __init__(self, *, allow_neg_eigval: bool = False) -> None:
        super().__init__(
            8, 16, n_heads=2, expand_v=3, short_filter=2, chunk=4,
            allow_neg_eigval=allow_neg_eigval, rest=lambda heads: (5, heads),
            decay=lambda heads: nn.Linear(heads, heads), n_steps=2,
        )  # fmt: skip

    def signals(self, u: Tensor) -> Signals:
        q, k, v, (_, b) = self.project(u)
        beta = self.steps(b)
        gate = u.new_full((*u.shape[:2], 24), 2.0)
        return Signals(unit(q), unit(k[..., :4]), v[..., :12], 0 * beta, beta, gate)


def test_projections_are_cut_by_head_and_the_rest_by_width() -> None:
    q, k, v, (other, b) = Layer().project(torch.randn(3, 7, 8))
    assert (q.shape, k.shape, v.shape) == ((3, 2, 7, 4), (3, 2, 7, 8), (3, 2, 7, 24))
    assert (other.shape, b.shape) == ((3, 7, 5), (3, 7, 2))


def test_steps_reach_one_or_two() -> None:
    logits = torch.tensor([[[-200.0, 0.0], [50.0, 0.0]]])
    assert Layer().steps(logits).tolist() == [[[0, 1], [0.5, 0.5]]]
    assert Layer(allow_neg_eigval=True).steps(logits).tolist() == [[[0, 2], [1, 1]]]
    assert Layer().steps(logits.bfloat16()).dtype == torch.float32


def test_the_gate_multiplies_the_normalised_outputs() -> None:
    op, u = Layer().double(), torch.randn(3, 7, 8).double()
    y = op.rule(op.signals(u))
    silu_of_2 = 2 / (1 + math.exp(-2))
    normed = y / (y.square().mean(-1, True) + 1e-5).sqrt()
    expected = op.out_proj(silu_of_2 * normed.transpose(1, 2).flatten(2))
    torch.testing.assert_close(op(u), expected)
    torch.testing.assert_close(op.mixing_matrix(u) @ op.signals(u).v, y)


def test_the_decay_is_drawn_between_the_projections_and_the_output() -> None:
    names = [name for name, _ in Layer().named_modules()]
    assert names == ["", "in_proj", "decay", "norm", "out_proj"]
