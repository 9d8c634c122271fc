from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import mechbench
from mechbench.errors import ConfigError
from mechbench.operators.mingru import MinGRU
from operators.fidelity import assert_true_to_source

D = 3


def build(**options: Any) -> MinGRU:
    torch.manual_seed(0)
    return MinGRU(D, 64, **options).double()


def inputs(length: int = 19) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 3 * torch.randn(2, length, D, generator=generator, dtype=torch.float64)


def g(x: Tensor) -> Tensor:
    rows = [v + 0.5 if v >= 0 else 1 / (1 + math.exp(-v)) for v in x.flatten().tolist()]
    return torch.tensor(rows, dtype=torch.float64).reshape(x.shape)


def recurrent(op: MinGRU, u: Tensor, *, positive: bool) -> Tensor:
    W_z, W_c = op.in_proj.weight.chunk(2)
    b_z, b_c = op.in_proj.bias.chunk(2)
    h, rows = torch.zeros(len(u), len(W_z), dtype=torch.float64), []
    for t in range(u.shape[1]):
        z = 1 / (1 + torch.exp(-(u[:, t] @ W_z.T + b_z)))
        c = u[:, t] @ W_c.T + b_c
        h = (1 - z) * h + z * (g(c) if positive else c)
        rows.append(h @ op.out_proj.weight.T + op.out_proj.bias)
    return torch.stack(rows, 1)


@pytest.mark.parametrize("length", [1, 2, 19, 64])
@pytest.mark.parametrize("expand", [1, 3])
def test_equals_the_recurrence(length: int, expand: int) -> None:
    op, u = build(expand=expand), inputs(length)
    with torch.no_grad():
        assert_true_to_source(op, op(u), recurrent(op, u, positive=True))


def test_linear_candidates_equal_the_recurrence() -> None:
    op, u = build(candidate="linear", expand=2), inputs()
    with torch.no_grad():
        expected = recurrent(op, u, positive=False)
        assert_true_to_source(op, op(u), expected, "candidate=linear")


def test_equals_the_log_space_form_of_the_paper() -> None:
    op, u = build(), inputs()
    with torch.no_grad():
        k, c = op.in_proj(u).chunk(2, -1)
        kept = -F.softplus(k).cumsum(1)  # log of the product of 1 - z so far
        log_terms = -F.softplus(-k) + g(c).log()
        h = torch.exp(kept + torch.logcumsumexp(log_terms - kept, 1))
        torch.testing.assert_close(op(u), op.out_proj(h), rtol=1e-11, atol=1e-11)


def test_gradients_are_those_of_the_recurrence() -> None:
    op, u = build(candidate="linear"), inputs().requires_grad_()
    weight = inputs().detach()
    targets = [u, *op.parameters()]
    fast = torch.autograd.grad((op(u) * weight).sum(), targets)
    slow = torch.autograd.grad((recurrent(op, u, positive=False) * weight).sum(), targets)
    torch.testing.assert_close(fast, slow, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_float32_is_as_good_as_it_gets_over_thousands_of_tokens(scale: float) -> None:
    torch.manual_seed(0)
    op = MinGRU(D, 4096)
    u = scale * torch.randn(1, 4096, D)  # at 100, gates are shut or open for most tokens
    found = op(u)
    exact = op.double()(u.double())
    assert (found - exact).abs().max() < 2e-6 * exact.abs().max()
    op.float()(u).sum().backward()
    assert all(p.grad.isfinite().all() for p in op.parameters())


@pytest.mark.parametrize("candidate", ["positive", "linear"])
def test_materialized_matrix_is_causal_and_gives_the_fast_path(candidate: str) -> None:
    op, u = build(candidate=candidate, expand=2), inputs()
    H = mechbench.materialize(op, u)
    assert H.shape == (2, 2 * D, 19, 19)
    assert torch.equal(H.triu(1), torch.zeros_like(H))
    assert (H.sum(-1) <= 1 + 1e-12).all()  # an average, and of what was there before: nothing
    with torch.no_grad():
        c = op._signals(u)[1].transpose(1, 2)
        y = op.out_proj((H @ c[..., None])[..., 0].transpose(1, 2))
        torch.testing.assert_close(op(u), y, rtol=1e-11, atol=1e-11)


def test_expand_out_of_range_raises() -> None:
    with pytest.raises(ConfigError, match="expand is 0: expected at least 1"):
        MinGRU(D, 64, expand=0)
