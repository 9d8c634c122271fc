from __future__ import annotations

import dataclasses

import pytest

from mechbench.record.config import Config
from mechbench.sweep.estimate import duration, estimate_s, known_speeds

BASE = Config("hyena", "recall", budget_tokens=1_000_000, seqlen=1024)


def data(config: Config, rate: float | None) -> dict[str, object]:
    return {"config": config.to_dict(), "tokens_per_s": rate}


def test_speed_of_the_nearest_length_counts() -> None:
    known = known_speeds(
        [
            data(dataclasses.replace(BASE, seqlen=512), 1e5),
            data(dataclasses.replace(BASE, seqlen=8192), 1e4),
            data(dataclasses.replace(BASE, seqlen=1024, device_type="cuda"), 1e7),
            data(dataclasses.replace(BASE, operator="attention"), 1e3),
            data(BASE, None),
        ]
    )
    assert estimate_s(BASE, known) == (pytest.approx(10), True)
    assert estimate_s(dataclasses.replace(BASE, seqlen=4096), known)[0] == pytest.approx(100)
    wider = dataclasses.replace(BASE, d_model=128)
    assert estimate_s(wider, known)[0] == pytest.approx(40)


def test_guess_grows_with_budget_width_and_attended_length() -> None:
    guess, measured = estimate_s(BASE, {})
    assert not measured
    for change in ({"budget_tokens": 2_000_000}, {"d_model": 256}, {"n_layers": 8}):
        assert estimate_s(dataclasses.replace(BASE, **change), {})[0] > 1.5 * guess
    attention = dataclasses.replace(BASE, operator="attention")
    longer = dataclasses.replace(attention, seqlen=32 * 1024)
    assert estimate_s(longer, {})[0] > 5 * estimate_s(attention, {})[0]
    assert estimate_s(dataclasses.replace(BASE, device_type="cuda"), {})[0] < guess


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.2, "3 s"), (89, "89 s"), (120, "2.0 min"), (7200, "2.0 h"), (10 * 86400, "10.0 days")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_what_was_trained_already_costs_nothing_more() -> None:
    whole, measured = estimate_s(BASE, {})
    assert estimate_s(BASE, {}, 250_000) == (pytest.approx(0.75 * whole), measured)
    assert estimate_s(BASE, {}, 2_000_000) == (0, measured)


def test_short_sequences_on_a_gpu_take_as_long_as_their_steps() -> None:
    cuda = dataclasses.replace(BASE, device_type="cuda", batch_size=64)
    short, shorter = (dataclasses.replace(cuda, seqlen=n) for n in (64, 32))
    assert estimate_s(shorter, {})[0] == pytest.approx(2 * estimate_s(short, {})[0])
    many = dataclasses.replace(short, batch_size=128)
    assert estimate_s(many, {})[0] == pytest.approx(estimate_s(short, {})[0] / 2)
    assert estimate_s(cuda, {})[0] < estimate_s(short, {})[0] / 3
