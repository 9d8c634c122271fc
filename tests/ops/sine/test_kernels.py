from __future__ import annotations

import pytest
import torch

from ops.conftest import relative_error
from ops.sine.layer import assert_a_layer_is_its_formula


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (130, 64), (3, 700, 33)])
def test_kernels_are_the_formula(kernel_device: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, freq = (3 * torch.randn(s, device=kernel_device) for s in (shape, shape[-1:]))
    exact = [t.double().requires_grad_() for t in (x, freq)]
    want = torch.sin(exact[1] * exact[0])
    grad = torch.randn_like(x)
    expected = torch.autograd.grad(want, exact, grad.double())
    from mechbench.ops.sine.kernels import backward, forward

    assert relative_error(forward(x, freq), want) < 1e-5
    for ours, theirs in zip(backward(x, freq, grad), expected, strict=True):
        assert relative_error(ours, theirs) < 1e-5


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (5, 3, 7), (130, 5, 64), (700, 64, 64), (33, 33, 20), (20000, 5, 8)]
)
@pytest.mark.parametrize("wants_dx", [True, False])
def test_the_kernels_of_a_layer_are_the_formula(
    kernel_device: str, shape: tuple[int, int, int], wants_dx: bool
) -> None:
    assert_a_layer_is_its_formula(kernel_device, shape, wants_dx)


def test_tiles_are_smaller_where_memory_is_little(
    kernel_device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mechbench.ops.sine import kernels

    monkeypatch.setattr(kernels, "roomy", lambda device: False)
    assert_a_layer_is_its_formula(kernel_device, (130, 64, 64))
