from __future__ import annotations

import pytest

from mechbench.tasks.fuzzy_recall import FuzzyRecall
from mechbench.tasks.halves import Halves
from mechbench.tasks.memorization import Memorization


@pytest.mark.parametrize(("vocab_size", "n_keys", "n_values"), [(9, 4, 4), (16, 7, 8)])
def test_keys_and_values_share_all_but_one_token(
    vocab_size: int, n_keys: int, n_values: int
) -> None:
    for task in (FuzzyRecall(vocab_size, 40), Memorization(vocab_size, 8)):
        assert isinstance(task, Halves)
        assert (task.n_keys, task.n_values) == (n_keys, n_values)
        assert task.chance == 1 / n_values
