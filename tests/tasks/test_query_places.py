from __future__ import annotations

import pytest
import torch

from mechbench.errors import ConfigError
from mechbench.tasks.query_places import check_power, draw_places


@pytest.mark.parametrize("power", [0.01, 0.5, 1.0])
def test_the_first_place_follows_the_power_law(power: float) -> None:
    places = draw_places(20_000, 3, 10, power, torch.Generator().manual_seed(0))
    assert all(len({*row}) == 3 for row in places[:100].tolist())
    weight = torch.arange(1, 11).double() ** (power - 1)
    found = places[:, 0].bincount(minlength=10).double() / 20_000
    torch.testing.assert_close(found, weight / weight.sum(), rtol=0, atol=0.012)


def test_all_places_can_be_taken() -> None:
    places = draw_places(50, 6, 6, 0.01, torch.Generator().manual_seed(0))
    assert (places.sort(1).values == torch.arange(6)).all()


@pytest.mark.parametrize("power", [0.0, -1.0, 1.01, float("nan")])
def test_a_power_beside_its_range_is_an_error(power: float) -> None:
    with pytest.raises(ConfigError, match="expected above 0 and at most 1"):
        check_power(power)


def test_the_ends_of_its_range() -> None:
    check_power(1e-9)
    check_power(1.0)
