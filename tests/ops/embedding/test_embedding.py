from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mechbench.ops.embedding import _MOST, Embedding, _Embedding, embedding
from ops.conftest import kernel_device, relative_error  # noqa: F401


@pytest.mark.parametrize("V", [1, 30, _MOST, _MOST + 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_is_pytorchs_with_its_gradient(device: str, V: int, dtype: torch.dtype) -> None:
    tokens = torch.randint(V, (3, 50), device=device)
    weight = torch.randn(V, 7, device=device, dtype=dtype, requires_grad=True)
    grad = torch.randn(3, 50, 7, device=device, dtype=dtype)
    want, y = F.embedding(tokens, weight), embedding(tokens, weight)
    assert torch.equal(y, want)
    (expected,), (got,) = (torch.autograd.grad(z, weight, grad) for z in (want, y))
    assert got.dtype == dtype
    assert relative_error(got, expected) < 1e-5


def test_the_gradient_may_be_spread_in_memory(kernel_device: str) -> None:  # noqa: F811
    tokens = torch.randint(5, (3, 40), device=kernel_device).T
    weight = torch.randn(5, 8, device=kernel_device, requires_grad=True)
    grad = torch.randn(8, 3, 40, device=kernel_device).permute(2, 1, 0)
    (expected,) = torch.autograd.grad(F.embedding(tokens, weight), weight, grad)
    (got,) = torch.autograd.grad(_Embedding.apply(tokens, weight), weight, grad)
    assert relative_error(got, expected) < 1e-5


def test_the_module_is_pytorchs_but_for_the_gradient(device: str) -> None:
    torch.manual_seed(1)
    theirs = nn.Embedding(6, 4)
    torch.manual_seed(1)
    ours = Embedding(6, 4)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert torch.equal(ours.weight, theirs.weight)
    tokens = torch.randint(6, (2, 5), device=device)
    assert torch.equal(ours.to(device)(tokens), theirs.to(device)(tokens))
