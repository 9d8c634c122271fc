from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from mechbench.errors import ConfigError
from mechbench.filters.implicit import ImplicitFilter

RELEASED = {"filter_time": "absolute", "filter_norm": "none"}


def make(n_filters: int = 2, d_model: int = 3, max_seqlen: int = 101, **given: Any):
    torch.manual_seed(0)
    given = {"filter_init_std": 0.3, **RELEASED, **given}
    return ImplicitFilter(n_filters, d_model, max_seqlen, **given).double()


def window_of(**given: Any) -> torch.Tensor:
    seqlen = given.pop("seqlen")
    with torch.no_grad():
        bare = make(**given)
        bare.windowed = False
        return make(**given)(seqlen) / bare(seqlen)


@pytest.mark.parametrize(("n_filters", "d_model", "seqlen"), [(1, 1, 1), (2, 3, 7), (3, 4, 101)])
def test_shape(n_filters: int, d_model: int, seqlen: int) -> None:
    assert make(n_filters, d_model)(seqlen).shape == (n_filters, d_model, seqlen)


@pytest.mark.parametrize("emb_dim", [3, 5, 9])
def test_equals_the_formula_written_naively(emb_dim: int) -> None:
    filters = make(1, 2, 11, emb_dim=emb_dim, filter_layers=1, filter_width=4, window_shift=0.1)
    bands = (emb_dim - 1) // 2
    first, inner, last = (m for m in filters.ffn if isinstance(m, torch.nn.Linear))
    h = filters(6)
    for i in range(6):
        t = i / 10
        rates = [1e-4 + k * (bands - 1 - 1e-4) / (bands - 1) if k else 1e-4 for k in range(bands)]
        code = [t]
        code += [math.cos(2 * math.pi * f * t) for f in rates]
        code += [-math.sin(2 * math.pi * f * t) for f in rates]
        x = torch.tensor(code, dtype=torch.float64)
        for layer in (first, inner):
            x = torch.sin(10.0 * (layer.weight @ x + layer.bias))
        x = last.weight @ x
        for d, decay in enumerate((1.5, 0.3)):
            expected = x[d] * (math.exp(-math.log(100) / decay * t) + 0.1)
            assert abs(h[0, d, i] - expected) < 1e-6  # bands are float32 buffers


def test_slowest_window_stands_at_a_hundredth_at_one_and_a_half_lengths() -> None:
    assert window_of(seqlen=151, window_shift=0.0)[0, 0, 150].item() == pytest.approx(
        1e-2, rel=1e-5
    )


def test_fastest_window_stands_at_a_hundredth_at_three_tenths_of_the_length() -> None:
    assert window_of(seqlen=31, window_shift=0.0)[0, -1, 30].item() == pytest.approx(1e-2, rel=1e-5)


def test_decay_rates_are_linear_over_channels_and_the_shift_is_kept() -> None:
    shifted = window_of(seqlen=21, d_model=5, window_shift=0.25)
    plain = window_of(seqlen=21, d_model=5, window_shift=0.0)
    torch.testing.assert_close(shifted, plain + 0.25)
    rates = -plain[0, :, 20].log() / 0.2
    torch.testing.assert_close(rates.diff(), rates.diff()[:1].expand(4), rtol=1e-4, atol=0)


def test_absolute_time_keeps_the_taps_when_the_input_grows() -> None:
    filters = make(filter_time="absolute")
    torch.testing.assert_close(filters(9)[..., :5], filters(5))


def test_relative_time_stretches_the_taps_with_the_input() -> None:
    filters = make(filter_time="relative")
    torch.testing.assert_close(filters(9)[..., ::2], filters(5))
    assert not torch.allclose(filters(9)[..., :5], filters(5))


@pytest.mark.parametrize("time", ["absolute", "relative"])
def test_both_times_agree_at_the_longest_input(time: str) -> None:
    torch.testing.assert_close(make(filter_time=time)(101), make()(101))


def test_norms() -> None:
    plain = make()(64)
    torch.testing.assert_close(make(filter_norm="length")(64), plain * (1024 / 64))
    by_sum = make(filter_norm="l1")(64)
    torch.testing.assert_close(by_sum.abs().sum(-1), torch.full((2, 3), 30.0).double())
    torch.testing.assert_close(by_sum / by_sum[..., :1], plain / plain[..., :1])


@pytest.mark.parametrize("emb_dim", [-1, 0, 1, 2, 4, 32])
def test_emb_dim_must_be_odd_and_three_or_more(emb_dim: int) -> None:
    with pytest.raises(ConfigError, match=f"emb_dim is {emb_dim}: expected an odd number"):
        make(emb_dim=emb_dim)


def test_stays_float32_under_autocast(device: str) -> None:
    filters = make().float().to(device)
    expected = filters(50)
    with torch.autocast(device, torch.bfloat16):
        taps = filters(50)
    assert taps.dtype == torch.float32
    assert torch.equal(taps, expected)
