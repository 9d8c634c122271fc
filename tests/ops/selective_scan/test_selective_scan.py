from __future__ import annotations

import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mechbench.ops import selective_scan, selective_scan_matrix, selective_scan_reference
from mechbench.ops.selective_scan import scan_

B, E, N = 2, 3, 4


def arguments(L: int, strength: float = 1.0) -> list[Tensor]:
    """Return x, dt, rate, b and c."""
    generator = torch.Generator().manual_seed(L)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).double()

    steps, rate = strength * draw(B, L, E).square(), draw(E, N).square()
    return [draw(B, L, E), steps, rate, draw(B, L, N), draw(B, L, N)]


@given(L=st.integers(1, 70), backwards=st.booleans())
def test_scan_in_place_equals_the_steps_one_by_one(L: int, backwards: bool) -> None:
    a, b = (torch.randn(2, L, 3, generator=torch.Generator().manual_seed(L + i)).double()
            for i in range(2))  # fmt: skip
    expected = b.clone()
    for t in range(1, L):
        now, before = (L - 1 - t, L - t) if backwards else (t, t - 1)
        expected[:, now] += a[:, now] * expected[:, before]
    scan_(a, b, backwards=backwards)
    torch.testing.assert_close(b, expected, rtol=1e-11, atol=1e-11)


@given(L=st.integers(1, 37), chunk=st.integers(1, 40), strength=st.sampled_from([0.0, 0.1, 5.0]))
def test_chunks_steps_and_matrix_agree(L: int, chunk: int, strength: float) -> None:
    x, *others = arguments(L, strength)
    expected = selective_scan_reference(x, *others)
    found = selective_scan(x, *others, chunk)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    matrix = selective_scan_matrix(*others)
    assert torch.equal(matrix.triu(1), torch.zeros_like(matrix))
    y = (matrix @ x.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 4, 7, 13, 64])
def test_gradients_are_those_of_the_steps(chunk: int) -> None:
    fast, slow = ([x.requires_grad_() for x in arguments(13)] for _ in range(2))
    weight = torch.randn(B, 13, E, generator=torch.Generator().manual_seed(1)).double()
    (selective_scan(*fast, chunk) * weight).sum().backward()
    (selective_scan_reference(*slow) * weight).sum().backward()
    for one, other in zip(fast, slow, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-11, atol=1e-11)


def test_groups_of_sequences_give_what_all_at_once_give(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for numbers in (1, 2**24):
        monkeypatch.setattr(sys.modules[scan_.__module__], "_NUMBERS", numbers)
        args = [v.requires_grad_() for v in arguments(13)]
        y = selective_scan(*args, 4)
        found.append((y, *torch.autograd.grad(y.square().sum(), args)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_long_memory_in_float32_equals_float64() -> None:
    x, dt, rate, b, c = (v.float() for v in arguments(5000))
    rate = torch.tensor([0.0, 1e-5, 1e-2, 30.0]).expand(E, N)  # from all to nothing is kept
    low = selective_scan(x, dt, rate, b, c)
    exact = selective_scan(*(v.double() for v in (x, dt, rate, b, c)))
    assert (low - exact).abs().max() < 1e-5 * exact.abs().max()


def test_strong_decay_gives_no_nan_in_values_or_gradients() -> None:
    x, dt, rate, b, c = (v.float().requires_grad_() for v in arguments(9))
    y = selective_scan(x, dt + 1e3, rate + 1, b, c, 4)
    y.square().sum().backward()
    assert all(v.grad.isfinite().all() for v in (x, dt, rate, b, c))
    own = (dt + 1e3) * x * (b * c).sum(-1, keepdim=True)  # nothing is remembered
    torch.testing.assert_close(y, own)


def test_only_one_state_a_chunk_is_kept_for_the_backward_pass() -> None:
    kept: list[int] = []

    def pack(x: Tensor) -> Tensor:
        kept.append(x.numel())
        return x

    args = [v.requires_grad_() for v in arguments(64)]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        selective_scan(*args, 16)
    assert 64 // 16 * B * E * N in kept
    assert max(kept) < B * 64 * E * N  # all states


def test_half_types_keep_their_dtype_and_sum_in_float32() -> None:
    ones = torch.ones(1, 1001, 1, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        y = selective_scan(ones, ones, torch.zeros(1, 1), ones, ones)
    assert y.dtype == torch.bfloat16
    assert y.flatten().tolist() == torch.arange(1, 1002).to(torch.bfloat16).tolist()


def test_skip_adds_x_itself() -> None:
    args, skip = [v.requires_grad_() for v in arguments(13)], torch.randn(E).double()
    skip.requires_grad_()
    both = selective_scan(*args, chunk=4, skip=skip)
    own = selective_scan(*args, chunk=4) + skip * args[0]
    assert torch.equal(both, own)
    ours, theirs = (torch.autograd.grad(y.square().sum(), [*args, skip]) for y in (both, own))
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_the_wider_type_of_x_and_the_steps_comes_out() -> None:
    x, dt, rate, b, c = (v.float() for v in arguments(9))
    y = selective_scan(x.bfloat16(), dt, rate, b.bfloat16(), c.bfloat16())
    assert y.dtype == torch.float32
    x, b, c = (v.bfloat16().float() for v in (x, b, c))
    assert torch.equal(y, selective_scan(x, dt, rate, b, c))
