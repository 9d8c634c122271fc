from __future__ import annotations

import torch

from mechbench.ops.sine import sine_layer
from ops.conftest import relative_error


def assert_a_layer_is_its_formula(
    device: str, shape: tuple[int, int, int], wants_dx: bool = True
) -> None:
    """Compare a layer of N rows from K features to W with its formula in float64."""
    N, K, W = shape
    x, weight = torch.randn(N, K, device=device), torch.randn(W, K, device=device) / K**0.5
    bias, freq = torch.randn(W, device=device), 3 * torch.randn(W, device=device)
    args = [t.requires_grad_() for t in (x, weight, bias, freq)]
    exact = [t.detach().double().requires_grad_() for t in args]
    want = torch.sin(exact[3] * (exact[0] @ exact[1].T + exact[2]))
    grad = torch.randn_like(want)
    if not wants_dx:
        args[0] = x.detach()
    y = sine_layer(*args)
    assert y.dtype == torch.float32
    assert relative_error(y, want) < 1e-5
    first = 0 if wants_dx else 1
    got = torch.autograd.grad(y, args[first:], grad.float())
    for ours, theirs in zip(got, torch.autograd.grad(want, exact[first:], grad), strict=True):
        assert ours.shape == theirs.shape
        assert relative_error(ours, theirs) < 1e-5
