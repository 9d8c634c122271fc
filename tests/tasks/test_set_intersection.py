from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, make_task
from mechbench.tasks.set_intersection import SetIntersection

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 2048, "seqlen": 83},
    {"vocab_size": 2048, "seqlen": 275, "n_short": 16, "short_first": False},
    {"vocab_size": 40, "seqlen": 256},
)

EXAMPLE = [9, 4, 7, 1, 10, 0, 8, 7, 3, 2, 11]


def sample(task: SetIntersection, n: int, seed: int = 0) -> zip[tuple[list[int], list[int]]]:
    batch = task.sample(n, torch.Generator().manual_seed(seed))
    assert torch.equal(batch.targets, batch.dense_targets)
    return zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True)


def test_the_example_of_the_docstring() -> None:
    task, inputs = SetIntersection(12, 11, 3), torch.tensor([EXAMPLE])
    assert task.oracle(inputs)[0].tolist() == [UNKNOWN] * 10 + [7]
    assert [task.describe(token) for token in EXAMPLE[:5]] == ["A", "4", "7", "1", "B"]
    assert task.shortcuts["last token of the first list"](inputs)[0, -1] == 1
    assert task.shortcuts["last token"](inputs)[0, -1] == 2


@st.composite
def tasks(draw: st.DrawFn) -> SetIntersection:
    seqlen = draw(st.integers(5, 60))
    n_short = draw(st.integers(0, (seqlen - 3) // 2))
    return SetIntersection(draw(st.integers(6, 80)), seqlen, n_short, draw(st.booleans()))


@given(task=tasks(), seed=st.integers(0, 2**40))
def test_the_lists_share_one_token(task: SetIntersection, seed: int) -> None:
    T = task.vocab_size - 3
    both = task.seqlen - 3
    short = task.n_short or max(1, both // 5)
    for inputs, targets in sample(task, 8, seed):
        middle = inputs.index(T + 1)
        assert (inputs[0], inputs[-1]) == (T, T + 2)
        first, second = inputs[1:middle], inputs[middle + 1 : -1]
        assert len(first) == (short if task.short_first else both - short)
        assert len(first) + len(second) == both
        assert all(0 <= token < T for token in [*first, *second])
        common = {*first} & {*second}
        assert targets == [IGNORE] * (task.seqlen - 1) + [*common]
        if both - 1 <= T:
            assert len({*first}) + len({*second}) == both


@given(task=tasks(), seed=st.integers(0, 2**40), window=st.integers(1, 60))
def test_a_window_tells_if_the_token_is_visible_on_both_sides(
    task: SetIntersection, seed: int, window: int
) -> None:
    T = task.vocab_size - 3
    for inputs, targets in sample(task, 4, seed):
        seen = inputs[-window:]
        expected = UNKNOWN
        if T + 1 in seen:
            middle = seen.index(T + 1)
            second = {*seen[middle + 1 : -1]}
            if {*seen[:middle]} & second or len(second) == 1:
                expected = targets[-1]
        assert task.oracle(torch.tensor([seen]))[0, -1] == expected


@pytest.mark.parametrize("vocab_size", [9, 30])
def test_answers_and_places_are_uniform(vocab_size: int) -> None:
    task = SetIntersection(vocab_size, 19, 4)
    answers, places = torch.zeros(vocab_size - 3), torch.zeros(12)
    for inputs, targets in sample(task, 12_000):
        answers[targets[-1]] += 1
        second = inputs[6:18]
        where = [i for i, token in enumerate(second) if token == targets[-1]]
        for place in where:
            places[place] += 1 / len(where)
    share = torch.full_like(answers, 1 / len(answers))
    torch.testing.assert_close(answers / 12_000, share, rtol=0, atol=0.015)
    torch.testing.assert_close(places / 12_000, torch.full((12,), 1 / 12), rtol=0, atol=0.012)


def test_a_token_of_the_second_list_is_the_best_guess_of_a_short_window() -> None:
    task = SetIntersection(203, 13, 2)
    batch = task.sample(4000, torch.Generator().manual_seed(0))
    guess = task.window_guess(batch.inputs[:, -4:], torch.full((4000,), 12))
    assert (guess == batch.targets[:, -1]).float().mean() == pytest.approx(1 / 8, abs=0.02)
    assert (task.window_guess(batch.inputs[:, -1:], torch.full((4000,), 12)) == UNKNOWN).all()


def test_sizes() -> None:
    assert make_task("set-intersection")._sizes == (16, 64)  # type: ignore[attr-defined]
    task = SetIntersection(2048, 275, 16, short_first=False)
    assert task._sizes == (256, 16)
    assert task.easier(20).n_short == 1
    assert task.easier(80)._sizes == (73, 4)
    assert SetIntersection(2048, 5, 1).easier(5).n_short == 1


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"vocab_size": 5}, "vocab_size is 5: .* at least 6"),
        (ConfigError, {"n_short": 41}, "n_short is 41: expected 1 to 40 at seqlen 83"),
        (ConfigError, {"n_short": -1}, "n_short is -1"),
        (SeqlenError, {"seqlen": 4}, "seqlen is 4: .* at least 5"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        SetIntersection(**{"vocab_size": 2048, "seqlen": 83, **given})
