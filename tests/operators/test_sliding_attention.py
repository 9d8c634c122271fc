from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mechbench
from mechbench.errors import ConfigError
from mechbench.operators.attention import Attention
from mechbench.operators.sliding_attention import SlidingAttention
from operators.fidelity import assert_true_to_source
from operators.naive_attention import by_hand

D = 8


def build(window: int, max_seqlen: int = 64) -> SlidingAttention:
    torch.manual_seed(0)
    return SlidingAttention(D, max_seqlen, n_heads=2, window=window).double()


@given(L=st.integers(1, 40), window=st.integers(1, 45))
def test_blocks_equal_the_banded_matrix(L: int, window: int) -> None:
    op = build(window)
    u = torch.randn(2, L, D, generator=torch.Generator().manual_seed(L), dtype=torch.float64)
    H = mechbench.materialize(op, u)
    t = torch.arange(L)
    age = t[:, None] - t
    assert torch.equal(H > 0, ((age >= 0) & (age < window)).expand_as(H))
    with torch.no_grad():
        _, _, v = op._heads(u)
        y = op.out_proj((H @ v).transpose(1, 2).flatten(2))
        torch.testing.assert_close(op(u), y, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("L", "window"), [(1, 1), (9, 1), (11, 4), (16, 8), (7, 32)])
def test_equals_a_softmax_over_the_window_written_naively(L: int, window: int) -> None:
    op = build(window)
    u = torch.randn(2, L, D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    with torch.no_grad():
        assert_true_to_source(op, op(u), by_hand(op, u))


def test_window_of_the_whole_input_is_attention() -> None:
    op, full = build(32), Attention(D, 64, n_heads=2).double()
    full.load_state_dict(op.state_dict())
    u = torch.randn(2, 32, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(op(u), full(u), rtol=1e-12, atol=1e-12)


def test_what_left_the_window_has_no_effect() -> None:
    op = build(5)
    u = torch.randn(1, 40, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u.requires_grad_()
    op(u)[:, 30].sum().backward()
    touched = u.grad.abs().sum(-1)[0].nonzero().flatten().tolist()
    assert touched == [26, 27, 28, 29, 30]


def test_nothing_of_the_size_of_the_squared_length_is_kept(device: str) -> None:
    L, sizes = 2048, []
    op = SlidingAttention(D, L, n_heads=2, window=16).to(device)

    def pack(saved: torch.Tensor) -> torch.Tensor:
        sizes.append(saved.untyped_storage().nbytes())
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        op(torch.randn(1, L, D, device=device))
    assert max(sizes) <= 4 * L * 3 * D * 4


def test_window_below_one_raises() -> None:
    with pytest.raises(ConfigError, match="window is 0: expected at least 1"):
        build(0)
