from __future__ import annotations

import pytest
from made_card import made_card

from mechbench.scorecard.card import Card
from mechbench.scorecard.ranks import Rank


@pytest.fixture(scope="module")
def card() -> Card:
    return made_card()


def test_own_operators_and_tasks_beside_the_known(card: Card) -> None:
    assert card.own == ("mine", "other")
    assert card.known == ("h3", "hyena")
    assert [task.name for task in card.tasks] == ["recall at 64", "induction at 64", "parity at 64"]
    assert {row.config.operator for row in card.known_rows} == {"h3", "hyena"}
    assert "copy" not in {row.config.task for row in card.known_rows}
    assert (card.solved("mine"), card.solved("other")) == (2, 1)


def test_what_was_stored_of_an_own_operator_gives_way(card: Card) -> None:
    recall = card.tasks[0]
    assert recall.entries["mine"].tokens == 400
    assert set(recall.known) == {"h3", "hyena"}


def test_how_far_accuracy_holds_is_told_where_it_was_scored(card: Card) -> None:
    recall, induction, _ = card.tasks
    assert recall.held == {"mine": 256, "other": 256, "hyena": 256, "h3": 256}
    assert induction.held == {}


def test_places_are_among_the_known_and_oneself(card: Card) -> None:
    recall, induction, parity = card.tasks
    assert recall.ranks.get("mine") == Rank(2, 2, 2, 2, 3)
    assert recall.ranks.get("other") == Rank(1, 1, 1, 1, 3)
    found = induction.ranks.get("mine")  # hyena was solved by 900, h3 later
    assert found is not None
    assert (found.first, found.last) == (2, 3)
    assert parity.ranks.get("mine") is None  # nobody else was run
    assert induction.ranks.get("other") is None


def test_the_most_alike_differ_least_in_tokens(card: Card) -> None:
    (first, times), (second, _) = card.nearest("mine")
    assert (first, second) == ("h3", "hyena")
    # Recall: h3 not by 1000, mine after 400; induction: h3 after 2000, mine not by 900.
    assert times == pytest.approx((1000 / 400) ** 0.5)
