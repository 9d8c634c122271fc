from __future__ import annotations

from pathlib import Path

import pytest

from mechbench.leaderboard.atlas import Atlas, Entry
from mechbench.leaderboard.atlas_plot import profile, write_atlas
from mechbench.report.solving import Cell, Solving
from mechbench.report.survival import Outcome


def entry(tokens: float, solved: bool = True) -> Entry:
    return Entry(tokens, solved, Solving((Cell(Outcome(tokens, solved)),)))


@pytest.fixture
def found() -> Atlas:
    return Atlas(
        ("hyena", "attention", "mine"),
        ("recall at 64", "induction at 64"),
        {
            ("hyena", "recall at 64"): entry(100), ("attention", "recall at 64"): entry(200),
            ("hyena", "induction at 64"): entry(10),
            ("attention", "induction at 64"): entry(9, False),
            ("mine", "recall at 64"): entry(1e6),
        },
        {"recall": ["vocab_size 30", "2 layers"], "induction": []},
    )  # fmt: skip


def test_shares_within_a_factor_of_the_best(found: Atlas) -> None:
    assert profile(found, "hyena") == ([1.0, 1.0, 1.0], [0.0, 0.5, 1.0])
    assert profile(found, "attention") == ([1.0, 2.0], [0.0, 0.5])
    assert profile(found, "mine") == ([1.0], [0.0])  # 10,000 times as many


def test_it_is_written_with_the_same_bytes_each_time(found: Atlas, tmp_path: Path) -> None:
    first, again = (write_atlas(found, tmp_path / name) for name in ("a", "b"))
    assert [path.name for path in first] == [
        "README.md", "map.png", "map.svg", "panels.png", "panels.svg", "profile.png", "profile.svg",
    ]  # fmt: skip
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    drawn = (tmp_path / "a" / "map.svg").read_text()
    for text in ("induction at 64", "attention", "&gt; 9", "1 M"):
        assert f"<!-- {text} -->" in drawn
    readme = (tmp_path / "a" / "README.md").read_text()
    assert "protocol 3" in readme
    assert "\n- recall: vocab_size 30, 2 layers\n" in readme
    assert "- induction" not in readme
