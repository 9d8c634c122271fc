from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, make_task
from mechbench.tasks.group_word import MOVES, GroupWord
from mechbench.tasks.groups import KNOWN, make_group

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"group": "A5", "seqlen": 64},
    {"group": "S5", "seqlen": 30, "moves": "swaps"},
)


def sample(task: GroupWord, n: int, seed: int = 0) -> tuple[list[list[int]], ...]:
    batch = task.sample(n, torch.Generator().manual_seed(seed))
    return tuple(t.tolist() for t in (batch.inputs, batch.targets, batch.dense_targets))


def test_the_example_of_the_docstring() -> None:
    task = GroupWord(6, 5)
    number = {task.describe(token): token for token in range(6)}
    inputs = torch.tensor([[number[text] for text in ("213", "132", "213", "321", "231")]])
    answers = [task.describe(token) for token in task.oracle(inputs)[0].tolist()]
    assert answers == ["213", "231", "321", "123", "231"]


@st.composite
def tasks(draw: st.DrawFn) -> GroupWord:
    group = draw(st.sampled_from(KNOWN))
    moves = draw(st.sampled_from(sorted(MOVES)))
    if group[0] == "Z" or "x" in group or (group[0] == "A" and moves == "swaps"):
        moves = "all"
    order = make_group(group).order
    return GroupWord(order + draw(st.integers(0, 3)), draw(st.integers(2, 60)), group, moves)


@given(task=tasks(), seed=st.integers(0, 2**40))
def test_targets_are_products_by_the_definition(task: GroupWord, seed: int) -> None:
    group = make_group(task.group)
    kinds = [part[0] for part in task.group.split("x")]
    for inputs, targets, dense in zip(*sample(task, 4, seed), strict=True):
        so_far = group.elements[0]
        for position, move in enumerate(inputs):
            so_far = tuple(
                ((a[0] + b[0]) % int(size),) if kind == "Z" else tuple(a[point] for point in b)
                for kind, size, a, b in zip(
                    kinds,
                    [part[1:] for part in task.group.split("x")],
                    so_far,
                    group.elements[move],
                    strict=True,
                )
            )
            assert group.elements[dense[position]] == so_far
            assert group.moved(move) <= MOVES[task.moves]
        scored = task.apart_by - 1
        assert targets == [IGNORE] * scored + dense[scored:]


@pytest.mark.parametrize(("moves", "count"), [("all", 120), ("swaps", 11), ("3-cycles", 31)])
def test_moves_are_uniform_among_those_allowed(moves: str, count: int) -> None:
    inputs = torch.tensor(sample(GroupWord(120, 30, "S5", moves), 4000)[0])
    share = torch.bincount(inputs.flatten(), minlength=120) / inputs.numel()
    assert (share > 0).sum() == count
    torch.testing.assert_close(share[share > 0], torch.full((count,), 1 / count), rtol=0.1, atol=0)


def test_it_is_scored_where_beginnings_differ() -> None:
    assert GroupWord(2, 64, "Z2").apart_by == 40
    assert GroupWord(2, 16, "Z2").apart_by == 16
    assert GroupWord(120, 30, "S5").apart_by == 6
    assert GroupWord(120, 30, "S5", "swaps").apart_by == 12


def test_the_vocabulary_is_by_default_the_groups() -> None:
    assert make_task("group-word").vocab_size == 6
    assert make_task("group-word", group="S5").vocab_size == 120
    assert make_task("group-word", group="Z2", vocab_size=10).vocab_size == 10
    assert make_task("group-word", group="Z60").chance == pytest.approx(1 / 60)


def test_a_window_tells_nothing() -> None:
    task = GroupWord(6, 16)
    inputs = task.sample(4, torch.Generator().manual_seed(0)).inputs
    assert (task.oracle(inputs[:, 1:]) == UNKNOWN).all()


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"group": "S6x2"}, "unknown group 'S6x2'"),
        (ConfigError, {"group": "A5"}, "vocab_size is 6: A5 has 60 elements, .* at least 60"),
        (SeqlenError, {"seqlen": 1}, "seqlen is 1: group-word needs at least 2"),
        (ConfigError, {"moves": "swap"}, "unknown moves 'swap': did you mean 'swaps'"),
        (ConfigError, {"group": "Z2", "moves": "swaps"}, "moves is 'swaps': Z2 has no such"),
        (ConfigError, {"group": "A3", "moves": "swaps"}, "A3 has no such element"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        GroupWord(**{"vocab_size": 6, "seqlen": 64, **given})
