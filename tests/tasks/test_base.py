from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

import mechbench
from mechbench.catalogue.registry import register_task
from mechbench.errors import ConfigError
from mechbench.tasks.base import make_task, matches, task_parameters


def test_make_task_takes_the_defaults_of_the_task_and_types_strings() -> None:
    task = mechbench.make_task("recall", min_distance="10")
    assert (task.vocab_size, task.seqlen, task.min_distance) == (20, 64, 10)


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("recal", {}, "unknown task 'recal': did you mean 'recall'"),
        ("recall", {"min_distanse": 3}, "no option 'min_distanse': did you mean 'min_distance'"),
        ("recall", {"min_distance": "far"}, "'far': expected a whole number"),
        ("recall", {"min_distance": 1.5}, "1.5: expected a whole number"),
        ("recall", {"seqlen": "64"}, "seqlen is '64': expected a whole number"),
        ("recall", {"seqlen": 0}, "seqlen is 0: expected at least 1"),
        ("recall", {"seqlen": 64.5}, "seqlen is 64.5: expected a whole number"),
        ("recall", {"vocab_size": True}, "vocab_size is True: expected a whole number"),
        ("induction", {"vocab_size": -5}, "vocab_size is -5: expected at least 1"),
    ],
)
def test_bad_arguments_raise(name: str, given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make_task(name, **given)


@pytest.mark.usefixtures("clean_registry")
def test_task_without_defaults_asks_for_the_length() -> None:
    @register_task("bare")
    @dataclass(frozen=True)
    class Bare:
        vocab_size: int
        seqlen: int

    assert make_task("bare", vocab_size=5, seqlen=6).seqlen == 6
    with pytest.raises(ConfigError, match="'bare' has no default seqlen: give one"):
        make_task("bare", vocab_size=5)


def test_tokens_match_if_equal_and_numbers_if_near() -> None:
    assert matches(torch.tensor([3, 4]), torch.tensor([3, 5])).tolist() == [True, False]
    near = matches(torch.tensor([1.09, 1.11, float("nan")]), torch.tensor([1.0, 1.0, 1.0]))
    assert near.tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("recall", {"seqlen": 2**31}, "seqlen is 2147483648: expected at most"),
        ("recall", {"vocab_size": 10**25}, "vocab_size is 10000000000000000000000000: expected"),
        ("recall", {"min_distance": 2**70}, "expected at most 9223372036854775807"),
        ("mqar", {"n_pairs": 2**31}, "vocab_size is 256: mqar with 2147483648 pairs needs"),
        ("majority", {"lead": float("nan")}, "is nan: expected a finite number"),
        ("memorization", {"map_seed": -1}, "map_seed is -1: expected 0 or more"),
    ],
)
def test_absurd_sizes_are_one_line(name: str, given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as got:
        make_task(name, **given)
    assert "\n" not in str(got.value)


def test_whole_numbers_of_any_type_are_the_same_task() -> None:
    found = make_task("recall", vocab_size=np.int64(30), seqlen=64.0, min_distance=np.int8(3))
    assert repr(found) == repr(make_task("recall", vocab_size=30, seqlen=64, min_distance=3))


@pytest.mark.usefixtures("clean_registry")
def test_a_task_that_raises_is_named() -> None:
    @register_task("raises")
    @dataclass(frozen=True)
    class Raises:
        vocab_size: int
        seqlen: int
        defaults = {"vocab_size": 4, "seqlen": 8}  # noqa: RUF012

        def __post_init__(self) -> None:
            raise ZeroDivisionError("by\nzero")

    with pytest.raises(
        ConfigError, match="task 'raises' raised ZeroDivisionError when built: by zero"
    ):
        make_task("raises")


def test_names_of_make_task_are_no_parameters() -> None:
    assert task_parameters({"min_distance": 3}) == {"min_distance": 3}
    for name in ("seqlen", "vocab_size", "name"):
        with pytest.raises(ConfigError, match=name):
            task_parameters({name: 3})
