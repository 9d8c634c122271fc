from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mechbench.errors import ConfigError
from mechbench.filters.transfer import TransferFilter


def make(max_seqlen: int, n_poles: int, radius: float) -> TransferFilter:
    """Filters whose poles lie on the circle of this radius."""
    torch.manual_seed(0)
    filters = TransferFilter(1, 2, max_seqlen, n_poles=n_poles).double()
    with torch.no_grad():
        for d in range(2):
            angle = torch.rand(n_poles // 2, dtype=torch.float64) * 3
            poles = radius * torch.cat([torch.exp(1j * angle), torch.exp(-1j * angle)])
            a = torch.ones(1, dtype=torch.complex128)
            for pole in poles:
                zero = torch.zeros(1, dtype=a.dtype)
                a = torch.cat([a, zero]) - pole * torch.cat([zero, a])
            filters.denominator[0, d] = a[1:].real
    return filters


def unrolled(b: Tensor, a: Tensor, n: int) -> Tensor:
    """Impulse response of b(z) / (1 + a(z)) by its difference equation."""
    h = []
    for t in range(n):
        value = b[t] if t < len(b) else torch.zeros((), dtype=b.dtype)
        for k in range(min(t, len(a))):
            value = value - a[k] * h[t - 1 - k]
        h.append(value)
    return torch.stack(h)


def test_equals_the_difference_equation_where_it_has_died_away() -> None:
    filters = make(200, 4, radius=0.7)  # 0.7^200 < 1e-30
    with torch.no_grad():
        for d in range(2):
            expected = unrolled(filters.numerator[0, d], filters.denominator[0, d], 50)
            torch.testing.assert_close(filters(50)[0, d], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("radius", [0.9, 0.99, 1.05])
def test_taps_obey_the_recurrence_of_the_poles_and_stay_finite(radius: float) -> None:
    filters = make(64, 4, radius)
    with torch.no_grad():
        h = filters(64)[0]  # (D, L)
        a = filters.denominator[0]  # (D, n)
        for t in range(4, 64):  # beyond the numerator
            tail = -(a * h[:, t - 4 : t].flip(1)).sum(1)
            torch.testing.assert_close(h[:, t], tail, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("max_seqlen", [1, 3, 64])
def test_starts_with_the_numerator_alone(max_seqlen: int) -> None:
    filters = TransferFilter(1, 2, max_seqlen, n_poles=8)
    n = min(max_seqlen, 8)
    torch.testing.assert_close(filters(max_seqlen)[..., :n], filters.numerator[..., :n])
    torch.testing.assert_close(
        filters(max_seqlen)[..., n:], torch.zeros(1, 2, max_seqlen - n), atol=1e-6, rtol=0
    )


def test_no_poles_raise() -> None:
    with pytest.raises(ConfigError, match="n_poles is 0"):
        TransferFilter(1, 3, 20, n_poles=0)
