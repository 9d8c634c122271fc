from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mechbench.errors import ConfigError
from mechbench.ops import diagonal_scan, diagonal_scan_matrix, diagonal_scan_reference


def draw(length: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a = torch.rand(2, length, 3, generator=generator, dtype=torch.float64)
    return a, torch.randn(2, length, 3, generator=generator, dtype=torch.float64)


@given(length=st.integers(1, 70), seed=st.integers(0, 2**31))
def test_equals_the_steps_one_by_one(length: int, seed: int) -> None:
    a, b = draw(length, seed)
    torch.testing.assert_close(
        diagonal_scan(a, b), diagonal_scan_reference(a, b), rtol=1e-13, atol=1e-13
    )


@pytest.mark.parametrize("length", [1, 2, 7, 32])
def test_gradients_are_those_of_the_steps(length: int) -> None:
    a, b = (x.requires_grad_() for x in draw(length))
    weight = draw(length, 1)[1]
    fast = torch.autograd.grad((diagonal_scan(a, b) * weight).sum(), (a, b))
    slow = torch.autograd.grad((diagonal_scan_reference(a, b) * weight).sum(), (a, b))
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(diagonal_scan, (a, b))


def test_a_closed_gate_forgets_all_and_an_open_one_nothing() -> None:
    b = torch.ones(1, 9, 2)
    a = torch.tensor([0.0, 1.0]).expand(1, 9, 2)
    found = diagonal_scan(a, b)
    assert torch.equal(found[0, :, 0], torch.ones(9))
    assert torch.equal(found[0, :, 1], torch.arange(1.0, 10.0))


def test_long_sums_keep_the_accuracy_of_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    a = 1 - 10 ** -(8 * torch.rand(1, 5000, 4, generator=generator, dtype=torch.float64))
    b = torch.randn(1, 5000, 4, generator=generator, dtype=torch.float64)
    exact = diagonal_scan(a.float().double(), b.float().double())
    error = (diagonal_scan(a.float(), b.float()) - exact).abs().max() / exact.abs().max()
    assert error < 1e-6


def test_the_matrix_holds_the_products_of_gates() -> None:
    a, b = draw(11)
    matrix = diagonal_scan_matrix(a.log())
    assert torch.equal(matrix.triu(1), torch.zeros_like(matrix))
    found = (matrix @ b.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)
    torch.testing.assert_close(found, diagonal_scan(a, b), rtol=1e-12, atol=1e-12)


def test_shapes_that_do_not_match_raise() -> None:
    with pytest.raises(ConfigError, match=r"\(2, 4, 3\) and \(2, 5, 3\): expected \(B, L, D\)"):
        diagonal_scan(torch.ones(2, 4, 3), torch.ones(2, 5, 3))
