from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.data.baselines import required_context, shortcut_accuracies
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, make_task
from mechbench.tasks.k_hop import KHop

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 22, "seqlen": 100},
    {"vocab_size": 30, "seqlen": 256, "n_symbols": 8, "max_hops": 5, "hops": 3},
)


def sample(task: KHop, n: int, seed: int = 0) -> tuple[list[list[int]], ...]:
    batch = task.sample(n, torch.Generator().manual_seed(seed))
    return tuple(t.tolist() for t in (batch.inputs, batch.targets, batch.dense_targets))


def solved(x: list[int], hops: int, none: int) -> list[int]:
    """Follow the paper's definition, place by place; x[0] is no symbol."""
    answers = []
    for i in range(1, len(x)):
        j = i
        for _ in range(hops):
            j = max((n for n in range(2, j + 1) if x[n - 1] == x[j]), default=0) if j else 0
        answers.append(x[j] if j else none)
    return answers


def test_the_example_of_the_docstring() -> None:
    inputs = [[6, 0, 1, 0, 2, 1, 2, 0, 1]]
    answers = KHop(7, 9, 3, 2).oracle(torch.tensor(inputs))[0].tolist()
    assert answers == [UNKNOWN, 3, 3, 3, 3, 1, 0, 3, 1]
    assert answers[1:] == solved(inputs[0], 2, 3)


@st.composite
def tasks(draw: st.DrawFn) -> KHop:
    symbols, most = draw(st.integers(3, 9)), draw(st.integers(0, 9))
    hops, more = draw(st.integers(-1, most)), draw(st.integers(0, 3))
    return KHop(symbols + most + 2 + more, draw(st.integers(2, 70)), symbols, most, hops)


@given(task=tasks(), seed=st.integers(0, 2**40))
def test_every_example_has_the_structure_of_the_docstring(task: KHop, seed: int) -> None:
    L, S = task.seqlen, task.n_symbols
    for inputs, targets, dense in zip(*sample(task, 8, seed), strict=True):
        assert len(inputs) == L
        hops = inputs[0] - S - 1
        assert hops == task.hops if task.hops >= 0 else 0 <= hops <= task.max_hops
        assert all(0 <= token < S for token in inputs[1:])
        assert all(a != b for a, b in pairwise(inputs))
        assert dense == [IGNORE, *solved(inputs, hops, S)]
        scored = task.apart_by - 1
        assert targets == [IGNORE] * scored + dense[scored:]


def test_hops_and_symbols_are_uniform() -> None:
    hops, pairs = torch.zeros(6), torch.zeros(4, 4)
    for inputs in sample(KHop(11, 30, 4, 5), 4000)[0]:
        hops[inputs[0] - 5] += 1
        for a, b in pairwise(inputs[1:]):
            pairs[a, b] += 1
    torch.testing.assert_close(hops / 4000, torch.full((6,), 1 / 6), rtol=0, atol=0.02)
    expected = (1 - torch.eye(4)) / 12
    torch.testing.assert_close(pairs / pairs.sum(), expected, rtol=0, atol=0.003)


@given(task=tasks(), window=st.integers(1, 30), seed=st.integers(0, 2**40))
def test_a_window_is_never_wrong_and_tells_what_it_holds(
    task: KHop, window: int, seed: int
) -> None:
    batch = task.sample(8, torch.Generator().manual_seed(seed))
    ends = range(window + 1, task.seqlen + 1)
    for end in ends:
        seen = batch.inputs[:, end - window : end]
        answers = task.oracle(seen)[:, -1].tolist()
        for x, told, right in zip(
            seen.tolist(), answers, batch.dense_targets[:, end - 1].tolist(), strict=True
        ):
            fixed = task.hops if task.max_hops else 0
            held = solved([-1, *x], fixed, UNKNOWN)[-1] if fixed >= 0 else UNKNOWN
            assert told == held
            assert told in {right, UNKNOWN}


def test_only_the_first_token_is_missing_where_all_symbols_are_seen() -> None:
    task = KHop(22, 6, hops=2)
    seen = torch.tensor([[0, 1, 2, 3, 2], [0, 1, 2, 1, 2]])
    assert task.oracle(seen)[:, -1].tolist() == [UNKNOWN, 2]
    assert task.window_guess(seen, torch.tensor([5, 5])).tolist() == [4, 2]


def test_a_beginning_of_40_bits_is_not_scored() -> None:
    assert KHop(22, 100).apart_by == 2 + 22  # 17 numbers, 4 symbols, then 1.58 bits each
    assert KHop(22, 100, hops=3).apart_by == 2 + 24
    assert KHop(22, 9).apart_by == 9
    assert sample(KHop(22, 9), 1)[1][0][:8] == [IGNORE] * 8


@pytest.mark.parametrize(("hops", "seqlen"), [(-1, 100), (16, 100), (16, 64), (16, 40), (0, 100)])
def test_the_most_frequent_answer_is_known_without_data(hops: int, seqlen: int) -> None:
    task = KHop(22, seqlen, hops=hops)
    batch = task.sample(2000, torch.Generator().manual_seed(0))
    share = torch.bincount(batch.targets[batch.targets != IGNORE]).double()
    found = shortcut_accuracies(task, batch)["most frequent answer"]
    assert found == pytest.approx((share.max() / share.sum()).item(), abs=0.01)


def test_shortcuts_leave_out_what_solves_the_task() -> None:
    assert set(KHop(22, 100).shortcuts) == {
        "most frequent answer", "no hop", "one hop", "at most 8 hops",
    }  # fmt: skip
    assert "no hop" not in KHop(22, 100, hops=0).shortcuts
    assert set(KHop(22, 100, hops=1).shortcuts) == {"most frequent answer", "no hop"}
    batch = KHop(22, 100).sample(500, torch.Generator().manual_seed(0))
    found = shortcut_accuracies(KHop(22, 100), batch)
    assert 0.6 < found["at most 8 hops"] < 0.72
    assert 0.25 < found["no hop"] < 0.29


def test_required_context_grows_with_the_number_of_hops() -> None:
    def at_32(hops: int) -> float:
        task = KHop(22, 128, hops=hops)
        return required_context(task, task.sample(500, torch.Generator().manual_seed(0)))[32]

    assert at_32(0) == 1
    assert at_32(2) > 0.98
    assert at_32(8) > at_32(16) + 0.3


def test_chance_and_sizes() -> None:
    assert KHop(22, 100).chance == pytest.approx(1 / 5)
    assert KHop(22, 100, hops=0).chance == KHop(6, 9, max_hops=0).chance == pytest.approx(1 / 4)
    assert make_task("k-hop").vocab_size == 22
    assert make_task("k-hop", n_symbols=9, max_hops=3).vocab_size == 14
    assert [KHop(24, 9).describe(t) for t in (0, 4, 5, 21, 22)] == [
        "0", "none", "k0", "k16", "unused 22",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"vocab_size": 21}, "vocab_size is 21: k-hop .* needs at least 22"),
        (ConfigError, {"n_symbols": 2}, "n_symbols is 2: expected at least 3"),
        (ConfigError, {"max_hops": -1}, "max_hops is -1: expected 0 or more"),
        (ConfigError, {"hops": 17}, r"hops is 17: expected -1 \(drawn\), or 0 to max_hops \(16\)"),
        (SeqlenError, {"seqlen": 1}, "seqlen is 1: k-hop needs at least 2"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        KHop(**{"vocab_size": 22, "seqlen": 100, **given})
    with pytest.raises(ConfigError):
        make_task("k-hop", n_symbols="many")
