from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mechbench.ops import (
    delta_product,
    delta_rule,
    delta_rule_matrix,
    delta_rule_reference,
)

K, P, H = 3, 2, 2


def draw(
    L: int, seed: int = 0, dtype: torch.dtype = torch.float64, *, channels: bool = False
) -> list[Tensor]:
    """Return q, k, v, log_decay (one a head, or one a key channel), beta."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    q, k = (F.normalize(normal(2, H, L, K), dim=-1) for _ in range(2))
    g = normal(2, H, L, K) if channels else normal(2, H, L)
    return [q, k, normal(2, H, L, P), -g.square(), normal(2, H, L).sigmoid()]


@given(L=st.integers(1, 41), chunk=st.integers(1, 17), channels=st.booleans())
def test_chunks_steps_and_matrix_agree(L: int, chunk: int, channels: bool) -> None:
    q, k, v, g, beta = draw(L, L, channels=channels)
    expected = delta_rule_reference(q, k, v, g, beta)
    torch.testing.assert_close(
        delta_rule(q, k, v, g, beta, chunk), expected, rtol=1e-10, atol=1e-10
    )
    matrix = delta_rule_matrix(q, k, g, beta)
    assert torch.equal(matrix.triu(1), torch.zeros_like(matrix))
    torch.testing.assert_close(matrix @ v, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("channels", [False, True])
def test_gradients_are_those_of_the_steps(channels: bool) -> None:
    tensors = [x.requires_grad_() for x in draw(11, channels=channels)]
    fast = torch.autograd.grad(delta_rule(*tensors, 4).square().sum(), tensors)
    slow = torch.autograd.grad(delta_rule_reference(*tensors).square().sum(), tensors)
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)


def test_equal_channels_are_one_decay_a_head() -> None:
    q, k, v, g, beta = draw(23)
    each = g[..., None].expand_as(k)
    torch.testing.assert_close(delta_rule(q, k, v, each, beta, 8), delta_rule(q, k, v, g, beta, 8))


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # in the interpreter
def test_strong_decay_of_a_channel_neither_overflows_nor_spoils_the_others() -> None:
    q, k, v, _, beta = draw(100, dtype=torch.float32)
    g = torch.tensor([0.0, -0.01, -200.0]).expand_as(k).clone().requires_grad_()
    y = delta_rule(q, k, v, g, beta)
    y.sum().backward()
    assert g.grad is not None
    assert g.grad.isfinite().all()
    exact = delta_rule_reference(*(x.detach().double() for x in (q, k, v, g, beta)))
    torch.testing.assert_close(y.double(), exact, rtol=1e-4, atol=1e-4)


def test_key_written_twice_holds_the_last_value() -> None:
    """Where linear attention would add both up: beta 1 overwrites, other keys stay."""
    k = torch.eye(2).double()[[0, 1, 0, 1]][None, None]  # keys 0, 1, 0, then a query for 1
    v = torch.tensor([[1.0], [5.0], [7.0], [0.0]]).double()[None, None]
    q = torch.eye(2).double()[[0, 1, 0, 1]][None, None]
    beta = torch.tensor([1.0, 1.0, 1.0, 0.0]).double()[None, None]
    y = delta_rule(q, k, v, torch.zeros_like(beta), beta)
    assert y.flatten().tolist() == [1.0, 5.0, 7.0, 5.0]


@given(L=st.integers(1, 41), chunk=st.integers(1, 17))
def test_steps_of_up_to_two_agree_too(L: int, chunk: int) -> None:
    q, k, v, g, beta = draw(L, L)
    expected = delta_rule_reference(q, k, v, g, 2 * beta)
    y = delta_rule(q, k, v, g, 2 * beta, chunk)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)


def test_a_step_of_two_turns_what_a_key_held_into_its_negative() -> None:
    """The parity of how often the key came again, which no beta up to 1 can hold."""
    k = torch.eye(2).double()[[0, 0, 0, 1, 0]][None, None]
    v = torch.tensor([[3.0], [0.0], [0.0], [0.0], [0.0]]).double()[None, None]
    beta = torch.tensor([1.0, 2.0, 2.0, 2.0, 2.0]).double()[None, None]
    query = torch.eye(2).double()[[0] * 5][None, None]
    y = delta_rule(query, k, v, torch.zeros_like(beta), beta)
    assert y.flatten().tolist() == [3.0, -3.0, 3.0, 3.0, -3.0]


def test_reflections_neither_grow_nor_drift_over_a_long_input() -> None:
    L = 3000
    generator = torch.Generator().manual_seed(0)
    q, k = (F.normalize(torch.randn(1, 1, L, 8, generator=generator), dim=-1) for _ in range(2))
    v = torch.randn(1, 1, L, 4, generator=generator) * (torch.arange(L) < 8)[:, None]
    g, beta = torch.zeros(1, 1, L), torch.full((1, 1, L), 2.0)
    y = delta_rule(q, k, v, g, beta)
    exact = delta_rule_reference(*(x.double() for x in (q, k, v, g, beta)))
    assert exact[:, :, -100:].abs().max() > 0.1  # nothing is forgotten
    torch.testing.assert_close(y.double(), exact, rtol=0, atol=1e-3)


def test_repeated_keys_stay_finite_over_a_long_input() -> None:
    L = 3000
    k = F.normalize(torch.ones(1, 1, L, 8), dim=-1)
    v = torch.randn(1, 1, L, 4, generator=torch.Generator().manual_seed(0))
    g, beta = torch.zeros(1, 1, L), torch.full((1, 1, L), 0.9)
    y = delta_rule(k, k, v, g, beta)
    assert y.abs().max() < v.abs().max()


def test_half_types_keep_their_dtype() -> None:
    tensors = draw(70, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        y = delta_rule(*tensors)
    assert y.dtype == torch.bfloat16
    expected = delta_rule_reference(*(x.double() for x in tensors))
    torch.testing.assert_close(y.double(), expected, rtol=1e-2, atol=1e-2)


def test_two_steps_a_token_are_two_tokens_of_which_the_second_is_read() -> None:
    q, k, v, g, beta = draw(10)
    pairs = (x.unflatten(2, (5, 2)) for x in (k, v))
    expected = delta_rule_reference(q, k, v, g, beta)[:, :, 1::2]
    torch.testing.assert_close(delta_product(q[:, :, 1::2], *pairs, g, beta, 3), expected)


def test_values_narrower_than_queries_lose_nothing() -> None:
    q, k, v, g, beta = (x.float() for x in draw(10))
    v = v.bfloat16()
    assert torch.equal(delta_rule(q, k, v, g, beta), delta_rule(q, k, v.float(), g, beta))
