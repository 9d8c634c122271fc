from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.errors import ConfigError
from mechbench.filters.ssm import SSMFilter, vandermonde

SEEDS = st.integers(0, 2**31)


@given(seqlen=st.integers(1, 200), modes=st.integers(1, 5), seed=SEEDS)
def test_vandermonde_equals_the_sum_of_its_docstring(seqlen: int, modes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(2, 3, modes, generator=generator, dtype=torch.complex128)
    rate = torch.randn(2, 3, modes, generator=generator, dtype=torch.complex128)
    rate = torch.complex(-rate.real.abs(), rate.imag)
    got = vandermonde(weight, rate, seqlen)
    power, expected = torch.ones_like(rate), []
    for _ in range(seqlen):
        expected.append(2 * (weight * power).sum(-1).real)
        power = power * rate.exp()
    torch.testing.assert_close(got, torch.stack(expected, -1), rtol=1e-9, atol=1e-9)


@given(seqlen=st.integers(1, 60), d_state=st.sampled_from([2, 4, 16]), seed=SEEDS)
def test_taps_are_the_impulse_response_of_the_discretised_state_space(
    seqlen: int, d_state: int, seed: int
) -> None:
    torch.manual_seed(seed)
    filters = SSMFilter(2, 3, 64, d_state=d_state).double()
    with torch.no_grad():
        filters.log_decay.add_(0.3 * torch.randn_like(filters.log_decay))
        A = -filters.log_decay.exp() + 1j * filters.turn
        dt = filters.log_dt.exp()[..., None]
        C = filters.C[..., 0] + 1j * filters.C[..., 1]
        x, taps = torch.zeros_like(A), filters(seqlen)
        for t in range(seqlen):  # zero-order hold: x <- e^{dt A} x + A^-1 (e^{dt A} - 1) u
            x = (dt * A).exp() * x + ((dt * A).exp() - 1) / A * (t == 0)
            y = 2 * (C * x).sum(-1).real
            torch.testing.assert_close(taps[..., t], y, rtol=1e-9, atol=1e-9)


def test_starts_as_s4d_lin() -> None:
    filters = SSMFilter(1, 500, 64, d_state=8)
    torch.testing.assert_close(filters.log_decay.exp(), torch.full((1, 500, 4), 0.5))
    torch.testing.assert_close(
        filters.turn, torch.tensor([0.0, 1.0, 2.0, 3.0]).mul(math.pi).expand(1, 500, 4)
    )
    dt = filters.log_dt.exp()
    assert dt.min() > 0.999e-3
    assert dt.max() < 1.001e-1
    assert dt.log().mean().item() == pytest.approx(math.log(1e-2), abs=0.2)


def test_poles_have_their_own_learning_rate() -> None:
    filters = SSMFilter(1, 3, 64)
    for parameter in (filters.log_dt, filters.log_decay, filters.turn):
        assert parameter.optim == {"lr": 1e-3, "weight_decay": 0.0}
    assert filters.C.optim == {"weight_decay": 0.0}


def test_long_filters_in_float32_equal_float64() -> None:
    torch.manual_seed(0)
    filters = SSMFilter(1, 4, 131072)
    low = filters(131072).double()
    high = filters.double()(131072)
    assert (low - high).norm() < 1e-3 * high.norm()


@pytest.mark.parametrize("d_state", [-2, 0, 1, 7])
def test_d_state_must_be_even_and_positive(d_state: int) -> None:
    with pytest.raises(ConfigError, match=f"d_state is {d_state}: expected an even"):
        SSMFilter(1, 3, 64, d_state=d_state)


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.1), (-1.0, 0.1), (0.2, 0.1)])
def test_time_steps_out_of_order_raise(low: float, high: float) -> None:
    with pytest.raises(ConfigError, match="dt_min is"):
        SSMFilter(1, 3, 64, dt_min=low, dt_max=high)
