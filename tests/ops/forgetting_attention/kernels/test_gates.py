from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mechbench.ops.forgetting_attention.kernels.gates import cumulated_gates, gate_gradient
from ops.conftest import relative_error

LOG2 = 0.6931471805599453


@pytest.mark.parametrize("L", [1, 50, 1300])
@pytest.mark.parametrize("logits", [True, False])
def test_sums_are_those_from_the_start(kernel_device: str, L: int, logits: bool) -> None:
    R = 32
    gate = torch.randn(2, L, 3).transpose(1, 2)
    k = torch.randn(2, 3, L, 5)
    given = gate.to(kernel_device), k.to(kernel_device)
    within, start, longest = (x.cpu() for x in cumulated_gates(*given, R, logits))
    steps = F.logsigmoid(gate.double()) if logits else gate.double()
    c = steps.cumsum(-1) / LOG2
    torch.testing.assert_close(start, c[..., ::R], rtol=3e-6, atol=3e-6)
    total = (start.repeat_interleave(R, -1) + within)[..., :L]
    torch.testing.assert_close(total, c, rtol=3e-6, atol=1e-5)
    assert within.isfinite().all()
    for n, block in enumerate(k.split(R, -2)):
        torch.testing.assert_close(longest[..., n], block.norm(dim=-1).amax(-1))


@pytest.mark.parametrize("gate", [-90.0, -3.0, 0.0, 1.0, 18.4])
def test_the_log_of_open_gates_is_exact(kernel_device: str, gate: float) -> None:
    """A gate of 1 - 1e-8 is 1 in float32; its log is not 0."""
    given = torch.full((1, 1, 2), gate, device=kernel_device)
    within = cumulated_gates(given, torch.zeros(1, 1, 2, 8, device=kernel_device), 32, True)[0]
    expected = F.logsigmoid(torch.tensor(gate).double()) / LOG2
    assert relative_error(within[0, 0, 1], expected) < 1e-5


@pytest.mark.parametrize("L", [1, 50, 1300])
@pytest.mark.parametrize("logits", [True, False])
def test_gradients_are_sums_from_the_end(kernel_device: str, L: int, logits: bool) -> None:
    gate = torch.randn(2, L, 3).transpose(1, 2)
    dc = torch.randn(2, 3, L + 7)  # as where L is no multiple of a block
    out = torch.empty(2, 3, L, device=kernel_device)
    gate_gradient(dc.to(kernel_device), gate.to(kernel_device), out, logits)
    expected = dc[..., :L].double().flip(-1).cumsum(-1).flip(-1)
    if logits:
        expected = expected * torch.sigmoid(-gate.double())
    assert relative_error(out, expected) < 1e-6
