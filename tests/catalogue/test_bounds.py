from __future__ import annotations

import dataclasses

import pytest

from mechbench.catalogue.bounds import CELLS, OPTIONS, SETTINGS, Bound, over
from mechbench.catalogue.registry import OPERATORS
from mechbench.operators.base import operator_options
from mechbench.record.config import Config


@pytest.mark.parametrize(
    ("bound", "small", "large"),
    [
        (Bound(int, 1, 9, "w"), "expected at least 1", "expected at most 9 (w)"),
        (Bound(int, 0, 9, "w"), "expected 0 or more", "expected at most 9 (w)"),
        (Bound(float, 0, 1e3, "w", above=True), "expected a positive number", "at most 1000"),
    ],
)
def test_bounds_say_what_is_expected(bound: Bound, small: str, large: str) -> None:
    assert bound.too_small == small
    assert large in bound.too_large


def test_every_number_of_a_configuration_has_a_bound() -> None:
    numbers = {f.name for f in dataclasses.fields(Config) if f.type in ("int", "float")}
    assert numbers <= set(SETTINGS)


def test_every_number_among_the_options_of_built_in_operators_has_a_bound() -> None:
    names = [name for name in OPERATORS.names() if OPERATORS.entry(name).origin == "built-in"]
    assert len(names) > 10
    for name in names:
        defaults = operator_options(name, {})
        defaults = {key.rpartition(".")[2]: value for key, value in defaults.items()}  # of parts
        numbers = {k for k, v in defaults.items() if type(v) in (int, float) or k == "filter_lr"}
        assert numbers <= set(OPTIONS), name
        for key in numbers - {"filter_lr"}:
            assert OPTIONS[key].least <= defaults[key] <= OPTIONS[key].most


def test_a_product_is_over_from_its_bound_on() -> None:
    assert over(CELLS, 200, 1000) == 0
    assert over(CELLS, 200, 1001) == 200_200
