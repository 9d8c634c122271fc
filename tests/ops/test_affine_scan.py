from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.ops import affine_scan, affine_scan_reference


@given(
    n=st.integers(1, 37),
    k=st.integers(1, 4),
    p=st.integers(1, 3),
    kind=st.sampled_from(["scalars", "diagonals", "matrices"]),
)
def test_equals_the_steps_one_by_one(n: int, k: int, p: int, kind: str) -> None:
    generator = torch.Generator().manual_seed(n)
    a_shape = {"scalars": (1, 1), "diagonals": (k, 1), "matrices": (k, k)}[kind]
    a = torch.randn(2, 1, n, *a_shape, generator=generator, dtype=torch.float64) / k
    b = torch.randn(2, 3, n, k, p, generator=generator, dtype=torch.float64)
    found = affine_scan(a, b)
    assert found.shape == b.shape
    torch.testing.assert_close(found, affine_scan_reference(a, b), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("a_size", [1, 2])
def test_gradients_are_those_of_the_steps(a_size: int) -> None:
    a = (torch.randn(5, a_size, a_size).double() / 2).requires_grad_()
    b = torch.randn(5, 2, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(affine_scan, (a, b))
    weight = torch.randn(5, 2, 3).double()
    fast = torch.autograd.grad((affine_scan(a, b) * weight).sum(), (a, b))
    slow = torch.autograd.grad((affine_scan_reference(a, b) * weight).sum(), (a, b))
    torch.testing.assert_close(fast, slow)


def test_a_column_is_a_diagonal() -> None:
    a, b = torch.randn(7, 3, 1).double(), torch.randn(7, 3, 2).double()
    torch.testing.assert_close(affine_scan(a, b), affine_scan(torch.diag_embed(a[..., 0]), b))


def test_constant_sum_over_many_steps() -> None:
    found = affine_scan(torch.ones(1000, 1, 1), torch.ones(1000, 1, 1))
    assert torch.equal(found.flatten(), torch.arange(1.0, 1001.0))
