from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import mechbench
from mechbench.errors import ConfigError
from mechbench.operators.aft import AFT
from operators.fidelity import assert_true_to_source

D = 4


def build(n_heads: int = 0, window: int = 3) -> AFT:
    torch.manual_seed(0)
    op = AFT(D, 20, n_heads=n_heads, window=window).double()
    with torch.no_grad():
        op.bias.mul_(100)  # as large as the keys, so that an error shows
    return op


def inputs(L: int) -> Tensor:
    return torch.randn(2, L, D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@pytest.mark.parametrize("L", [1, 2, 3, 11, 20])
@pytest.mark.parametrize(("n_heads", "window"), [(0, 3), (0, 1), (2, 5), (1, 64)])
def test_equals_the_sums_written_naively(L: int, n_heads: int, window: int) -> None:
    op, u = build(n_heads, window), inputs(L)
    with torch.no_grad():
        q = u @ op.query.weight.T + op.query.bias
        k = u @ op.key.weight.T + op.key.bias
        v = u @ op.value.weight.T + op.value.bias
        mixed = torch.zeros_like(u)
        for b in range(2):
            for t in range(L):
                for d in range(D):
                    head = d // (D // (n_heads or D))
                    num = den = 0.0
                    for s in range(t + 1):
                        bias = float(op.bias[head, t - s]) if t - s < min(window, 20) else 0.0
                        weight = math.exp(float(k[b, s, head]) + bias)
                        num += weight * float(v[b, s, d])
                        den += weight
                    mixed[b, t, d] = num / den / (1 + math.exp(-float(q[b, t, d])))
        expected = mixed @ op.out_proj.weight.T + op.out_proj.bias
        assert_true_to_source(op, op(u), expected)


def test_materialized_weights_are_causal_and_give_outputs_and_gradients() -> None:
    op, weight = build(2), inputs(11).flip(1)
    H = mechbench.materialize(op, inputs(11))
    assert H.shape == (2, D, 11, 11)
    assert torch.equal(H.triu(1), torch.zeros_like(H))

    def dense(u: Tensor) -> Tensor:
        v = op.value(u).transpose(1, 2)
        return op.out_proj((op.mixing_matrix(u) @ v[..., None])[..., 0].transpose(1, 2))

    found = []
    for function in (op, dense):
        op.zero_grad()
        u = inputs(11).requires_grad_()
        y = function(u)
        (weight * y).sum().backward()
        found.append([y, u.grad, *(p.grad.clone() for p in op.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_keys_of_any_size_stay_finite_and_causal() -> None:
    op = build().float()
    with torch.no_grad():
        op.key.weight.mul_(500)
    u = inputs(20).float()
    y = op(u)
    y.square().sum().backward()
    assert y.isfinite().all()
    assert all(p.grad.isfinite().all() for p in op.parameters())
    u[:, 10:] *= 100
    assert torch.equal(op(u)[:, :10], y[:, :10])


@pytest.mark.parametrize("size", [-200.0, 200.0])
def test_large_biases_stay_finite(size: float) -> None:
    op = build().float()
    with torch.no_grad():
        op.bias.add_(size)
    y = op(inputs(20).float())
    y.square().sum().backward()
    assert y.isfinite().all()
    assert op.bias.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "says"),
    [({"n_heads": 3}, "n_heads is 3"), ({"n_heads": -1}, "n_heads is -1"),
     ({"window": 0}, "window is 0")],
)  # fmt: skip
def test_options_out_of_range_raise(options: dict[str, int], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        AFT(D, 20, **options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_graph_on_the_gpu_gives_outputs_and_gradients_of_float64() -> None:
    op, u = build(2).float().cuda(), inputs(17).float().cuda().requires_grad_()
    exact, exact_u = build(2), inputs(17).requires_grad_()
    graph = torch.cuda.CUDAGraph()
    torch.autograd.grad(op(u).square().sum(), u)  # warms up what a capture must not do
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        y = op(u)
        (grad,) = torch.autograd.grad(y.square().sum(), u)
    graph.replay()
    expected = exact(exact_u)
    expected.square().sum().backward()
    torch.testing.assert_close(y.detach().cpu().double(), expected.detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(grad.cpu().double(), exact_u.grad, rtol=1e-3, atol=1e-3)
