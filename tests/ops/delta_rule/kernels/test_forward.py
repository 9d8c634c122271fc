from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mechbench.ops import delta_rule, delta_rule_reference
from mechbench.ops.delta_rule.kernels import segments
from mechbench.ops.delta_rule.kernels.forward import forward
from ops.conftest import relative_error

B, H = 2, 2


def draw(L: int, K: int, P: int, reach: float = 1.0) -> list[Tensor]:
    """Return q, k, v, log_decay, beta as operators have them, in float64."""
    generator = torch.Generator().manual_seed(L + K + P)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    q, k = (F.normalize(normal(B, L, H, K), dim=-1).transpose(1, 2) for _ in range(2))
    v, g = normal(B, L, H, P).transpose(1, 2), -0.1 * normal(B, L, H).transpose(1, 2).square()
    return [q, k, v, g, reach * normal(B, H, L).sigmoid()]


def test_equal_keys_are_no_worse(kernel_device: str) -> None:
    """T is then full of ones: powers of it, as in a Neumann series, would reach 1e18."""
    q, k, v, g, beta = draw(64, 8, 8)
    k = k[:, :, :1].expand_as(k)
    given = [q, k, v, 0 * g, torch.ones_like(beta)]
    got = delta_rule(*(x.to(kernel_device, torch.float32) for x in given))
    assert relative_error(got, delta_rule_reference(*given)) < 1e-5


@pytest.mark.parametrize("count", [1, 3])
def test_states_are_those_that_chunks_start_from(
    kernel_device: str, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Read by queries that are the rows of the identity."""
    monkeypatch.setattr(segments, "_PROGRAMS", B * H * count)
    monkeypatch.setattr(segments, "_LEAST", 1)
    monkeypatch.setattr(segments, "_FEWEST", 2)
    L, K, P = 300, 4, 8
    _, k, v, g, beta = given = draw(L, K, P, 2.0)
    q, k_low, v_low, g_low, beta_low = (x.to(kernel_device, torch.float32) for x in given)
    y, inverses, states, turns = forward(
        q, k_low[:, :, :, None], v_low[:, :, :, None], g_low, beta_low, "tf32x3"
    )
    C = inverses.shape[-1]
    assert y.transpose(1, 2).is_contiguous()
    assert inverses.shape[2] == states.shape[2] == -(-L // C)
    assert (turns is None) == (count == 1)
    rows = torch.eye(K, dtype=torch.float64)
    read = [delta_rule_reference(r.expand(B, H, L, K), k, v, g, beta) for r in rows]
    expected = torch.stack(read, -2)[:, :, C - 1 : -1 : C]  # (B, H, chunks - 1, K, P)
    assert states[:, :, 0].abs().max() == 0
    assert relative_error(states[:, :, 1:], expected) < 1e-5
