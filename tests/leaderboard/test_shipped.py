from __future__ import annotations

from mechbench.leaderboard.shipped import shipped_boards


def test_boards_are_found_by_their_results() -> None:
    found = shipped_boards()
    assert {"mad", "recall-vs-length"} <= {path.parent.name for path in found}
    assert found == sorted(found)
    assert all(path.is_file() for path in found)
