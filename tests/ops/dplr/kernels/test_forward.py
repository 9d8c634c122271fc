from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mechbench.ops import dplr, dplr_reference
from ops.conftest import relative_error

B, H = 2, 2
# Pairs that do not count: NumPy, in which the interpreter computes, warns of them.
MASKED = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")


def draw(L: int, K: int, P: int, decay: float = 0.3) -> list[Tensor]:
    """Return q, k, v, a, b, log_decay as operators lay them out, in float64."""
    generator = torch.Generator().manual_seed(L + K + P)

    def normal(width: int) -> Tensor:
        x = torch.randn(B, L, H, width, generator=generator, dtype=torch.float64)
        return x.transpose(1, 2)

    a = -F.normalize(normal(K), dim=-1)
    b = -a * normal(K).sigmoid()
    return [normal(K), normal(K) / K**0.5, normal(P), a, b, -decay * normal(K).square()]


@pytest.mark.parametrize(
    ("L", "K", "P"), [(1, 1, 1), (2, 8, 8), (37, 8, 16), (128, 20, 24), (200, 5, 70), (40, 128, 64)]
)
def test_values_are_those_of_the_steps(kernel_device: str, L: int, K: int, P: int) -> None:
    given = draw(L, K, P)
    y = dplr(*(x.to(kernel_device, torch.float32) for x in given))
    assert y.shape == (B, H, L, P)
    assert y.transpose(1, 2).is_contiguous()
    assert relative_error(y, dplr_reference(*given)) < 5e-6


@MASKED
@pytest.mark.parametrize("decay", [0.0, 1.0, 100.0, 1e4, float("inf")])
def test_any_decay_is_as_exact(kernel_device: str, decay: float) -> None:
    """Some channels decay at once, beside others that keep all, in turns."""
    q, k, v, a, b, g = draw(100, 8, 8, 1.0)
    strong = torch.rand(g.shape, generator=torch.Generator().manual_seed(1)) < 0.3
    g = torch.where(strong, -decay, 0.01 * g)
    y = dplr(*(x.to(kernel_device, torch.float32) for x in (q, k, v, a, b, g)))
    assert relative_error(y, dplr_reference(q, k, v, a, b, g)) < 5e-6


def test_a_factor_near_one_is_kept_over_a_long_input(kernel_device: str) -> None:
    """Rounded to TF32 once a chunk, what the first token wrote would be off by a hundredth."""
    q, k, v, a, b, _ = draw(700, 4, 4)
    k, a = k * (torch.arange(700) == 0)[:, None], 0 * a
    given = [q, k, v, a, b, torch.full_like(q, -1e-5)]
    with torch.autocast(kernel_device, torch.bfloat16):
        y = dplr(*(x.to(kernel_device, torch.float32) for x in given))
    expected = dplr_reference(*given)
    assert relative_error(y[..., -50:, :], expected[..., -50:, :]) < 2e-3


def test_half_types_stay_what_they_are(kernel_device: str) -> None:
    """The decays in float32 beside them, as operators give them."""
    *given, g = draw(70, 16, 32)
    half = [x.to(torch.bfloat16) for x in given]
    y = dplr(*(x.to(kernel_device) for x in half), g.to(kernel_device, torch.float32))
    assert y.dtype == torch.bfloat16
    assert relative_error(y, dplr_reference(*(x.double() for x in half), g)) < 8e-3
