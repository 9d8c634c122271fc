from __future__ import annotations

import pytest

from mechbench.tasks.fuzzy_recall import FuzzyRecall
from mechbench.tasks.halves import Halves
from mechbench.tasks.memorization import Memorization
from mechbench.tasks.multi_key_recall import MultiKeyRecall
from mechbench.tasks.recall import Recall


@pytest.mark.parametrize(("vocab_size", "n_keys", "n_values"), [(9, 4, 4), (16, 7, 8)])
def test_keys_and_values_share_all_but_one_token(
    vocab_size: int, n_keys: int, n_values: int
) -> None:
    for task in (FuzzyRecall(vocab_size, 40), Memorization(vocab_size, 8)):
        assert isinstance(task, Halves)
        assert (task.n_keys, task.n_values) == (n_keys, n_values)
        assert task.chance == 1 / n_values


def test_two_specials_leave_the_rest_to_keys_and_values() -> None:
    for task in (Recall(9, 8), MultiKeyRecall(9, 9)):
        assert (task.n_keys, task.n_values, task.chance) == (3, 4, 1 / 4)


def test_tokens_are_named_by_what_they_are() -> None:
    def names(task: Halves) -> str:
        return " ".join(map(task.describe, range(task.vocab_size)))

    assert names(Recall(8, 8)) == names(MultiKeyRecall(8, 9)) == ". k1 k2 k3 v1 v2 v3 =>"
    assert names(Memorization(6, 8)) == "k1 k2 v1 v2 v3 =>"
    assert names(FuzzyRecall(7, 20)) == "k1 k2 k3 v1 v2 v3 ."
