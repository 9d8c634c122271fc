from __future__ import annotations

import copy
from typing import Any

from leaderboard.forgeries import rehash
from mechbench.leaderboard.copies import copies


def seeds(genuine: dict[str, Any], n: int) -> list[dict[str, Any]]:
    found = []
    for seed in range(n):
        data = copy.deepcopy(genuine)
        data["config"]["seed"] = seed
        found.append(rehash(data))
    return found


def test_one_result_under_ten_seeds_counts_for_none(genuine: dict[str, Any]) -> None:
    ten = seeds(genuine, 10)
    found = copies(ten, [])
    assert set(found) == {data["cell_id"] for data in ten}
    assert all(len(lines) == 1 and "a copy" in lines[0] for lines in found.values())


def test_what_is_stored_already_is_the_genuine_one(genuine: dict[str, Any]) -> None:
    first, second = seeds(genuine, 2)
    found = copies([first, second], [first])
    assert set(found) == {second["cell_id"]}
    assert f"{first['cell_id']} (seed 0)" in found[second["cell_id"]][0]


def test_equal_counts_at_other_times_are_two_measurements(genuine: dict[str, Any]) -> None:
    first, second = seeds(genuine, 2)
    second["seconds"]["train"] += 1e-6
    assert copies([first, second], []) == {}
    assert copies([first, copy.deepcopy(first)], [first]) == {}


def test_failures_without_a_score_are_no_copies(genuine: dict[str, Any]) -> None:
    genuine["evaluations"] = []
    assert copies(seeds(genuine, 3), []) == {}
