from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mechbench.ops.linear import linear
from mechbench.ops.mlp import _MLP, mlp
from ops.conftest import kernel_device, relative_error  # noqa: F401


def layers(D: int, H: int, E: int) -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList([nn.Linear(D, H), nn.Linear(H, E)])


def with_gradients(y: Tensor, u: Tensor, both: nn.ModuleList, dy: Tensor) -> list[Tensor]:
    return [y, *torch.autograd.grad(y, (u, *both.parameters()), dy.to(y))]


def exact(u: Tensor, both: nn.ModuleList, dy: Tensor) -> list[Tensor]:
    """Return y and the gradients of u and the four parameters in float64."""
    both, u = copy.deepcopy(both).double(), u.detach().double().requires_grad_()
    return with_gradients(both[1](F.gelu(both[0](u))), u, both, dy)


@pytest.mark.parametrize(("D", "H", "E"), [(1, 1, 1), (8, 32, 8), (5, 20, 3), (65, 260, 65)])
def test_is_its_formula_with_gradients(device: str, D: int, H: int, E: int) -> None:
    both = layers(D, H, E).to(device)
    u = torch.randn(2, 7, D, device=device, requires_grad=True)
    dy = torch.randn(2, 7, E, device=device)
    got = with_gradients(mlp(u, *both), u, both, dy)
    for a, b in zip(got, exact(u, both, dy), strict=True):
        assert relative_error(a, b) < 1e-5


def test_autocast_gives_bfloat16(device: str) -> None:
    both = layers(8, 32, 8).to(device)
    with torch.autocast(device, torch.bfloat16):
        assert mlp(torch.randn(3, 8, device=device), *both).dtype == torch.bfloat16


def test_fused_gives_every_gradient_in_its_own_dtype(kernel_device: str) -> None:  # noqa: F811
    both = layers(8, 32, 8).to(kernel_device)
    u = torch.randn(8, 5, device=kernel_device, dtype=torch.float16).T.requires_grad_()
    dy = torch.randn(8, 5, device=kernel_device, dtype=torch.float16).T
    up, down = both
    y = _MLP.apply(u, up.weight, up.bias, down.weight, down.bias, torch.float16)
    got = with_gradients(y, u, both, dy)
    assert [t.dtype for t in got] == 2 * [torch.float16] + 4 * [torch.float32]
    for a, b in zip(got, exact(u, both, dy), strict=True):
        assert relative_error(a, b) < 3e-3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("D", [16, 64])
def test_fused_is_no_further_from_the_formula_than_unfused(dtype: torch.dtype, D: int) -> None:
    both = layers(D, 4 * D, D).cuda()
    u = torch.randn(4, 1500, D, device="cuda").to(dtype).requires_grad_()
    dy = torch.randn(4, 1500, D, device="cuda").to(dtype)
    with torch.autocast("cuda", dtype):
        y = mlp(u, *both)
        assert "_MLP" in type(y.grad_fn).__name__
        unfused = linear(F.gelu(linear(u, both[0])), both[1])
    want = exact(u, both, dy)
    for ours, theirs, b in zip(
        with_gradients(y, u, both, dy), with_gradients(unfused, u, both, dy), want, strict=True
    ):
        # The sum of dy is exact but for float32's rounding either way.
        assert relative_error(ours, b) < max(1e-5, 1.02 * relative_error(theirs, b))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_fused_is_deterministic() -> None:
    both = layers(64, 256, 64).cuda()
    u = torch.randn(64, 1024, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    dy = torch.randn_like(u)

    def run() -> list[Tensor]:
        with torch.autocast("cuda", torch.bfloat16):
            return with_gradients(mlp(u, *both), u, both, dy)

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))
