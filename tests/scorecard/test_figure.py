from __future__ import annotations

from pathlib import Path

from made_card import made_card

from mechbench.scorecard.card import make_card
from mechbench.scorecard.figure import draw_card


def test_same_card_same_bytes_with_every_task_and_operator(tmp_path: Path) -> None:
    first = draw_card(made_card(), tmp_path / "a")
    again = draw_card(made_card(), tmp_path / "b")
    assert [path.name for path in first] == ["a.png", "a.svg", "a.pdf"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    drawn = first[1].read_text()
    for text in ("recall at 64", "parity at 64", "mine", "other", "hyena", "h3"):
        assert f"<!-- {text} -->" in drawn


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    assert draw_card(make_card([], []), tmp_path / "a") == []
