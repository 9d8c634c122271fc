from __future__ import annotations

import torch

from mechbench.tasks.shortcuts import (
    after_match,
    after_match_and_answers,
    backing_off,
    earliest,
    last_of_key,
    latest,
    most_frequent,
)

INPUTS = torch.tensor([[9, 2, 5, 5, 3, 9, 9], [0, 3, 3, 2, 9, 9, 9]])


def test_most_frequent_counts_the_range_only() -> None:
    assert most_frequent(INPUTS, 2, 6).tolist() == [[5] * 7, [3] * 7]
    assert most_frequent(INPUTS, 0, 10).tolist() == [[9] * 7, [9] * 7]


def test_latest_is_unknown_before_the_first() -> None:
    assert latest(INPUTS, 2, 6).tolist() == [[-1, 2, 5, 5, 3, 3, 3], [-1, 3, 3, 2, 2, 2, 2]]


def test_earliest_is_the_first_of_the_range() -> None:
    assert earliest(INPUTS, 2, 6).tolist() == [[2] * 7, [3] * 7]


def test_after_match_reads_behind_the_latest_same_tokens() -> None:
    row = [1, 2, 7, 1, 2, 8, 3, 2, 9, 1, 2, 2]
    inputs = torch.tensor([row, row[::-1]])
    for length in (1, 2, 3):
        expected = []
        for x in inputs.tolist():
            answers = []
            for t in range(len(x)):
                last = x[t + 1 - length : t + 1] if t + 1 >= length else None
                places = [s for s in range(length - 1, t) if x[s + 1 - length : s + 1] == last]
                found = [x[s + 1] for s in places if 7 <= x[s + 1] < 10]
                answers.append(found[-1] if found else -1)
            expected.append(answers)
        assert after_match(inputs, length, 7, 10).tolist() == expected
    assert after_match(inputs[:, :2], 3, 7, 10).tolist() == [[-1, -1], [-1, -1]]


def test_after_match_tells_long_contexts_of_large_vocabularies_apart() -> None:
    row = torch.randint(0, 1 << 20, (12,), generator=torch.Generator().manual_seed(0))
    inputs = torch.cat([row, row])[None]
    assert after_match(inputs, 10, 0, 1 << 20)[0, 21:23].tolist() == row[10:].tolist()
    inputs[0, 13] += 1
    assert after_match(inputs, 10, 0, 1 << 20)[0, 21:23].tolist() == [-1, -1]


def test_after_match_and_answers_asks_for_the_answers_since_too() -> None:
    inputs = torch.tensor([[1, 7, 8, 1, 7, 9, 2, 1, 7, 8]])
    low, high = 7, 10
    assert after_match_and_answers(inputs, 1, 2, low, high)[0, 7:9].tolist() == [7, 9]
    assert after_match_and_answers(inputs, 1, 1, low, high)[0, 7:9].tolist() == [7, -1]
    # Two answers since: of those before only the first place has the same.
    assert after_match_and_answers(inputs, 1, 3, low, high)[0, 9] == -1
    assert after_match(inputs, 1, low, high)[0, 8] == 9


def test_backing_off_asks_the_next_rule_where_one_has_no_guess() -> None:
    guess = backing_off(lambda x: latest(x, 2, 6), lambda x: most_frequent(x, 9, 10))
    assert guess(INPUTS)[0].tolist() == [9, 2, 5, 5, 3, 3, 3]


def test_rules_by_a_part_of_the_key_have_names() -> None:
    assert last_of_key(1) == "value of the last key token"
    assert last_of_key(2) == "value of the last 2 key tokens"
