from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

import mechbench
from mechbench.errors import ConfigError
from mechbench.registry import register_task
from mechbench.tasks.base import make_task, matches


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
