from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mechbench.ops import (
    decay_attention,
    decay_attention_matrix,
    decay_attention_reference,
)

K, P, H = 3, 2, 2


def draw(L: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(L + sum(shape))
    return torch.randn(*shape, generator=generator, dtype=dtype)


@given(
    L=st.integers(1, 41),
    chunk=st.integers(1, 17),
    shared=st.booleans(),
    decay=st.sampled_from(["none", "constant", "step"]),
)
def test_chunks_steps_and_matrix_agree(L: int, chunk: int, shared: bool, decay: str) -> None:
    heads = 1 if shared else H
    q, k, v = draw(L, 2, heads, L, K), draw(L + 1, 2, heads, L, K), draw(L, 2, H, L, P)
    g = {
        "none": None,
        "constant": torch.tensor([-0.01, -0.7]).double()[:, None],
        "step": -draw(L, 2, H, L).square(),
    }[decay]
    expected = decay_attention_reference(q, k, v, g)
    torch.testing.assert_close(decay_attention(q, k, v, g, chunk), expected, rtol=1e-10, atol=1e-10)
    matrix = decay_attention_matrix(q, k, g)
    assert torch.equal(matrix.triu(1), torch.zeros_like(matrix))
    torch.testing.assert_close((matrix @ v).expand_as(v), expected, rtol=1e-10, atol=1e-10)


def test_gradients_are_those_of_the_steps() -> None:
    L = 11
    tensors = [draw(L + i, 1, H, L, n).requires_grad_() for i, n in enumerate((K, K, P))]
    g = -draw(L, 1, H, L).square()
    g.requires_grad_()
    weight = draw(L, 1, H, L, P)
    fast = torch.autograd.grad((decay_attention(*tensors, g, 4) * weight).sum(), [*tensors, g])
    slow = torch.autograd.grad(
        (decay_attention_reference(*tensors, g) * weight).sum(), [*tensors, g]
    )
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)


def test_strong_decay_gives_no_nan_in_values_or_gradients() -> None:
    q, k, v = (draw(9, 1, 1, 9, 2, dtype=torch.float32) for _ in range(3))
    g = torch.full((1, 1, 9), -80.0, requires_grad=True)
    y = decay_attention(q, k, v, g, 4)
    y.sum().backward()
    assert y.isfinite().all()
    assert g.grad.isfinite().all()
    torch.testing.assert_close(y, (q * k).sum(-1, keepdim=True) * v)  # nothing is remembered


def test_half_types_keep_their_dtype_and_sum_in_float32() -> None:
    ones = torch.ones(1, 1, 1001, 1, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        y = decay_attention(ones, ones, ones)
    assert y.dtype == torch.bfloat16
    assert y.flatten().tolist() == torch.arange(1, 1002).to(torch.bfloat16).tolist()


def test_a_scale_and_a_skip_are_those_of_the_values() -> None:
    q, k, v = draw(9, 2, 1, 9, K), draw(8, 2, 1, 9, K), draw(9, 2, H, 9, P)
    w, d = draw(9, 2, H, 9).exp(), draw(1, H)
    expected = decay_attention(q, k, v * w[..., None]) + d[:, None, None] * v
    torch.testing.assert_close(decay_attention(q, k, v, scale=w, skip=d), expected)
