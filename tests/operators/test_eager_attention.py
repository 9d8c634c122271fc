from __future__ import annotations

import pytest
import torch

import mechbench
from mechbench.operators.attention import Attention
from mechbench.operators.eager_attention import EagerAttention
from operators.fidelity import assert_true_to_source
from operators.naive_attention import by_hand

D, L = 8, 21


def test_equals_fused_attention_in_values_and_gradients() -> None:
    torch.manual_seed(0)
    fused = Attention(D, L, n_heads=2).double()
    eager = EagerAttention(D, L, n_heads=2).double()
    eager.load_state_dict(fused.state_dict())
    u = torch.randn(2, L, D, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(eager(u), fused(u), rtol=1e-12, atol=1e-12)
    for operator in (eager, fused):
        operator(u).square().sum().backward()
    torch.testing.assert_close(eager.qkv.weight.grad, fused.qkv.weight.grad)
    assert torch.equal(mechbench.materialize(eager, u), mechbench.materialize(fused, u))


@pytest.mark.parametrize("n_heads", [1, 2, 4])
def test_equals_a_softmax_over_the_past_written_naively(n_heads: int) -> None:
    torch.manual_seed(0)
    op = EagerAttention(D, L, n_heads=n_heads).double()
    u = torch.randn(2, 9, D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    with torch.no_grad():
        assert_true_to_source(op, op(u), by_hand(op, u))


def test_matrix_of_weights_is_really_in_memory() -> None:
    """Unlike that of the fused kernels: it is what this operator is there to show."""

    def largest(operator: torch.nn.Module) -> int:
        sizes = []
        u = torch.randn(1, 256, D)

        def pack(saved: torch.Tensor) -> torch.Tensor:
            sizes.append(saved.numel())
            return saved

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
            operator(u)
        return max(sizes)

    assert largest(EagerAttention(D, 256, n_heads=1)) == 256 * 256
    assert largest(Attention(D, 256, n_heads=1)) < 256 * 256 / 4
