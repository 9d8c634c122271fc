from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mechbench.catalogue.registry import OPERATORS
from mechbench.errors import SeqlenError
from mechbench.operators.base import make_operator

D, L = 8, 24
BUILT_IN = [n for n in OPERATORS.names() if OPERATORS.entry(n).origin == "built-in"]
pytestmark = pytest.mark.parametrize("name", BUILT_IN)


def build(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return make_operator(name, d_model=D, max_seqlen=L)


def inputs(B: int = 3, length: int = L, seed: int = 1) -> Tensor:
    return torch.randn(
        B, length, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


@pytest.mark.parametrize("length", [1, 2, 7, L])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype(name: str, length: int, dtype: torch.dtype, device: str) -> None:
    y = build(name).to(device, dtype)(inputs(length=length).to(device, dtype))
    assert y.shape == (3, length, D)
    assert y.dtype == dtype
    assert y.isfinite().all()


def test_runs_under_bfloat16_autocast(name: str, device: str) -> None:
    operator, u = build(name).to(device), inputs().float().to(device)
    exact = operator(u)
    with torch.autocast(device, torch.bfloat16):
        y = operator(u)
    assert (y.float() - exact).norm() < 3e-2 * exact.norm()
    y.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in operator.parameters())


def test_every_parameter_gets_a_finite_gradient(name: str, device: str) -> None:
    operator = build(name).to(device)
    operator(inputs().float().to(device)).square().sum().backward()
    for label, parameter in operator.named_parameters():
        assert parameter.grad is not None, label
        assert parameter.grad.isfinite().all(), label
        # q and k biases may have none; a matrix without any is not connected
        if parameter.ndim > 1:
            assert parameter.grad.abs().max() > 0, label


@pytest.mark.parametrize("length", [1, 2, 7])
def test_gradients_are_finite_at_any_length(name: str, length: int) -> None:
    operator, u = build(name), inputs(length=length).float().requires_grad_()
    operator(u).square().sum().backward()
    assert u.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in operator.parameters())


@pytest.mark.parametrize("cut", [1, L // 2, L - 1])
def test_outputs_do_not_move_with_later_inputs(name: str, cut: int) -> None:
    operator, u = build(name).double(), inputs()
    before = operator(u)
    changed = u.clone()
    changed[:, cut:] = inputs(seed=2)[:, cut:]
    after = operator(changed)
    assert (after - before)[:, :cut].abs().max() < 1e-12 * before.abs().max()
    assert (after - before)[:, cut:].abs().max() > 1e-6 * before.abs().max()


@pytest.mark.parametrize("cut", [1, L // 2, L - 1])
def test_gradients_do_not_reach_later_inputs(name: str, cut: int) -> None:
    u = inputs().requires_grad_()
    build(name).double()(u)[:, :cut].sum().backward()
    assert u.grad[:, cut:].abs().max() < 1e-12 * u.grad[:, :cut].abs().max()


def test_examples_of_a_batch_do_not_mix(name: str) -> None:
    operator, u = build(name).double(), inputs()
    together = operator(u)
    for row in range(len(u)):
        torch.testing.assert_close(operator(u[row : row + 1])[0], together[row])


def test_longer_input_than_built_for_raises(name: str) -> None:
    with pytest.raises(SeqlenError, match=f"input of {L + 1} tokens: .*max_seqlen={L}"):
        build(name)(inputs(length=L + 1).float())


def test_state_dict_restores_the_function(name: str) -> None:
    one, other, u = build(name, 0), build(name, 1), inputs().float()
    assert not torch.equal(one(u), other(u))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(u), other(u))


def test_same_seed_gives_the_same_function_and_repeats_agree(name: str) -> None:
    one, same, u = build(name), build(name), inputs().float()
    assert torch.equal(one(u), same(u))
    assert torch.equal(one(u), one(u))


def test_catalogue_entry_is_complete(name: str) -> None:
    entry = OPERATORS.entry(name)
    assert entry.summary.endswith(".")
    assert entry.source
