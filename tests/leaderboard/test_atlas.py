from __future__ import annotations

import math
from typing import Any

import pytest
from made_results import made_result, seeds_of

from mechbench.leaderboard.atlas import Atlas, atlas
from mechbench.record.outcome import CellOutcome
from mechbench.report.aggregate import Section, aggregate
from mechbench.report.rows import rows_of

# Tokens to solve of each seed; negative: given up then.
Tokens = tuple[int, ...]


def board(task: str, found: dict[str, Tokens], **settings: Any) -> list[Section]:
    return aggregate([r for name, n in found.items() for r in seeds_of(name, task, n, **settings)])


@pytest.fixture
def found() -> Atlas:
    recall = {"hyena": (200, 300, 400), "attention": (100, 100, 100), "h3": (-900, -900, 50)}
    whole = atlas([
        board("recall", recall),
        board("recall", dict.fromkeys(recall, (800,)), seqlen=1024),
        board("induction", {"hyena": (50, 60, 70), "attention": (500, -600, 300)}),
        board("parity", {"hyena": (-9,), "attention": (-9,)}),  # nobody solves it
        board("copy", {"hyena": (7,), "stranger": (9,)}, protocol=2, schedule="cosine"),
    ])  # fmt: skip
    assert whole is not None
    return whole


def test_operators_by_tasks_the_best_first(found: Atlas) -> None:
    assert found.tasks == ("induction at 64", "recall at 64", "recall at 1K")
    assert found.operators == ("hyena", "attention", "h3")
    assert set(found.entries) == {
        (o, t) for o in found.operators for t in found.tasks
    } - {("h3", "induction at 64")}  # fmt: skip


def test_tokens_are_relative_to_the_best_of_a_task(found: Atlas) -> None:
    assert found.best("recall at 64") == 100
    assert found.ratio("hyena", "recall at 64") == 3
    assert found.ratio("attention", "induction at 64") == pytest.approx(500 / 60)
    assert found.ratio("h3", "recall at 64") == math.inf
    assert found.ratio("h3", "induction at 64") is None
    unsolved = found.entries["h3", "recall at 64"]
    assert (unsolved.tokens, unsolved.solved, unsolved.solving.solved) == (900, False, 1)


def test_variants_and_other_lengths_than_the_trained_one_are_left_out() -> None:
    both = {"hyena": (200,), "attention": (100,)}
    longer = [
        row
        for name, n in both.items()
        for row in rows_of(seeds_of(name, "recall", n)[0].data | made_longer(name, n))
    ]
    variants = seeds_of("hyena", "recall", (3,), operator_options={"order": 2})
    variants += seeds_of("hyena", "recall", (3,), operator_options={"order": 3})
    whole = atlas([aggregate(longer), board("induction", both), aggregate(variants)])
    assert whole is not None
    assert whole.tasks == ("induction at 64", "recall at 64")
    assert whole.operators == ("attention", "hyena")


def test_of_two_boards_it_is_the_one_that_scores_where_it_trains() -> None:
    both = {"hyena": (200,), "attention": (100,)}
    longer = [
        r for name in both for r in rows_of(made_result(operator=name) | made_longer(name, (9,)))
    ]
    whole = atlas([aggregate(longer), board("recall", both), board("induction", both)])
    assert whole is not None
    assert whole.entries["hyena", "recall at 64"].tokens == 200


def made_longer(operator: str, tokens: Tokens) -> dict[str, Any]:
    data = made_result({64: 0.9, 128: 0.8}, operator=operator)
    solved = {"outcome": CellOutcome("solved", tokens[0]).to_dict(), "solved": True}
    return data | solved | {"train_tokens": tokens[0]}


def test_names_leave_out_what_most_tasks_of_a_name_have() -> None:
    both = {"hyena": (200,), "attention": (100,)}
    whole = atlas([
        board("recall", both), board("recall", both, seqlen=1024),
        board("recall", both, d_model=128), board("induction", both),
    ])  # fmt: skip
    assert whole is not None
    assert whole.tasks == (
        "induction at 64",
        "recall at 64",
        "recall at 1K",
        "recall, d_model 128 at 64",
    )
    assert whole.usual["recall"] == ["min_distance=0", "vocab_size 20", "d_model 64", "2 layers"]


def test_of_a_single_board_or_operator_there_is_none() -> None:
    both = {"hyena": (200,), "attention": (100,)}
    assert atlas([board("recall", both)]) is None
    assert atlas([board("recall", {"hyena": (2,)}), board("induction", {"hyena": (2,)})]) is None
    assert (
        atlas([board("recall", {"hyena": (-2,), "h3": (-2,)}), board("induction", both)])
        is not None
    )
    assert atlas([]) is None
