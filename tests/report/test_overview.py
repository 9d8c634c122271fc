from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechbench.report.aggregate import Section, aggregate
from mechbench.report.collect import collect
from mechbench.report.overview import overview_lines, scaled

Store = Callable[..., Path]


def sections(tmp_path: Path) -> list[Section]:
    return aggregate(collect([tmp_path / "runs"])[0])


@given(chance=st.floats(0, 0.99), share=st.floats(-1, 1))
def test_a_guess_is_nothing_and_all_right_is_one(chance: float, share: float) -> None:
    assert scaled(chance, chance) == 0
    assert scaled(1.0, chance) == pytest.approx(1)
    assert scaled(chance + share * (1 - chance), chance) == pytest.approx(share, abs=1e-9)


def test_what_cannot_be_scaled() -> None:
    assert scaled(None, 0.5) is None
    assert scaled(1.0, 1.0) is None


def test_tasks_of_different_chance_stand_side_by_side(store: Store, tmp_path: Path) -> None:
    store({64: 0.55, 128: 0.1})
    store({64: 0.75}, task="majority", chance=0.5)
    store({}, task="majority", chance=0.5, operator="h3", status="error")
    lines = overview_lines(sections(tmp_path))
    assert lines[0] == ["accuracy (scaled) where trained", "length", "chance", "h3", "hyena"]
    assert [line[1:] for line in lines[1:]] == [
        ["64", "50.0", "error", "75.0 (50.0)"],
        ["64", "10.0", "-", "55.0 (50.0)"],
    ]
    assert lines[1][0].startswith("majority, vocab_size 20")


def test_tasks_of_one_chance_need_no_overview(store: Store, tmp_path: Path) -> None:
    store({64: 0.55})
    assert overview_lines(sections(tmp_path)) == []
    store({64: 0.75}, task="mqar")
    assert overview_lines(sections(tmp_path)) == []
