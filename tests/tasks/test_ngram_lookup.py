from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN
from mechbench.tasks.ngram_lookup import NgramLookup

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 27, "seqlen": 64},
    {"vocab_size": 20, "seqlen": 512, "n": 3, "n_answer": 5},
)


def sample(task: NgramLookup, n: int, seed: int = 0) -> zip[tuple[list[int], list[int]]]:
    batch = task.sample(n, torch.Generator().manual_seed(seed))
    assert torch.equal(batch.targets, batch.dense_targets)
    return zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True)


def places(string: list[int], gram: list[int]) -> list[int]:
    return [i for i in range(len(string)) if string[i : i + len(gram)] == gram]


def test_the_example_of_the_docstring() -> None:
    task = NgramLookup(6, 7, 2, 2)
    inputs = torch.tensor([[3, 0, 1, 0, 2, 0, 4, 5, 1, 0, 2]])
    answers = task.oracle(inputs)[0].tolist()
    assert (answers[:9], answers[9:]) == ([UNKNOWN] * 9, [2, 0])
    assert "".join(map(task.describe, inputs[0].tolist())) == "dabacae|bac"
    assert task.shortcuts["behind the same letter"](inputs)[0, 9] == 4  # of the last a


@st.composite
def tasks(draw: st.DrawFn) -> NgramLookup:
    n, n_answer = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    seqlen = n + n_answer + draw(st.integers(0, 60))
    return NgramLookup(draw(st.integers(4, 30)), seqlen, n, n_answer)


@given(task=tasks(), seed=st.integers(0, 2**40))
def test_the_ngram_occurs_once_and_is_followed_by_the_answer(task: NgramLookup, seed: int) -> None:
    L, n = task.seqlen, task.n
    for inputs, targets in sample(task, 8, seed):
        string, gram = inputs[:L], inputs[L + 1 : L + 1 + n]
        assert all(0 <= token < task.vocab_size - 1 for token in [*string, *gram])
        assert inputs[L] == task.vocab_size - 1
        (at,) = places(string, gram)
        answer = string[at + n : at + n + task.n_answer]
        assert len(answer) == task.n_answer
        assert inputs[L + 1 + n :] == answer[:-1]
        assert targets == [IGNORE] * (L + n) + answer


def test_the_ngram_is_uniform_over_those_that_occur_once() -> None:
    first = total = 0
    for inputs, _ in sample(NgramLookup(4, 6), 20_000):
        string = inputs[:6]
        once = [i for i in range(4) if len(places(string, string[i : i + 2])) == 1]
        (at,) = places(string, inputs[7:9])
        assert at in once
        if len(once) == 3:
            total += 1
            first += at == once[0]
    assert total > 4000
    assert abs(first / total - 1 / 3) < 0.02


def test_answers_are_uniform_where_one_ngram_must_be_planted() -> None:
    counts = torch.zeros(3)
    for inputs, targets in sample(NgramLookup(4, 300), 3000):
        assert inputs[:300].count(inputs[301]) == 1  # the first letter of the n-gram
        counts[targets[-1]] += 1
    torch.testing.assert_close(counts / 3000, torch.full((3,), 1 / 3), rtol=0, atol=0.03)


def test_a_window_tells_if_it_holds_the_ngram() -> None:
    task = NgramLookup(6, 7, 2, 2)
    inputs = torch.tensor([[3, 0, 1, 0, 2, 0, 4, 5, 1, 0]])
    assert task.oracle(inputs[:, -8:])[0, -1] == 2
    cut = inputs[:, -7:]
    assert task.oracle(cut)[0, -1] == UNKNOWN
    assert task.window_guess(cut, torch.tensor([9])) == 2  # it begins with the end of the n-gram
    assert task.window_guess(inputs[:, -6:], torch.tensor([9])) == 2
    assert task.window_guess(inputs[:, -2:], torch.tensor([9])) == 2  # neither of the n-gram


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"vocab_size": 3}, "vocab_size is 3: ngram-lookup needs at least 4"),
        (ConfigError, {"n": 0}, "n is 0: expected 1 to 13 at vocab_size 27"),
        (ConfigError, {"n": 14}, "n is 14: expected 1 to 13"),
        (ConfigError, {"n_answer": 0}, "n_answer is 0: expected at least 1"),
        (SeqlenError, {"n_answer": 7}, "seqlen is 8: .* at least 9"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        NgramLookup(**{"vocab_size": 27, "seqlen": 8, **given})
