from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch

import mechbench
from mechbench.catalogue.registry import register_task
from mechbench.errors import ConfigError
from mechbench.tasks.base import (
    IGNORE,
    Batch,
    Task,
    as_task,
    make_task,
    matches,
    task_parameters,
)
from mechbench.tasks.counting import Counting
from mechbench.tasks.recall import Recall


@dataclass(frozen=True)
class _Plain:
    """A task that derives from nothing."""

    vocab_size: int
    seqlen: int
    chance = 0.25

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        inputs = torch.randint(self.vocab_size, (batch_size, self.seqlen), generator=generator)
        return Batch(inputs, inputs, inputs)

    def oracle(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs


@dataclass(frozen=True, slots=True)
class _Slots:
    """One that derives from nothing, and whose members are fields."""

    vocab_size: int
    seqlen: int
    sample: Any = None
    oracle: Any = None
    input_dim: int = 3
    chance: float = 0.5


@dataclass(frozen=True)
class _Held(_Plain):
    """One that sets a member when it is built."""

    easiest_seqlen: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "easiest_seqlen", 2)

    def easier(self, seqlen: int) -> _Held:
        return _Held(self.vocab_size, seqlen)


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
    class Bare(_Plain):
        pass

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
    class Raises(_Plain):
        defaults = {"vocab_size": 4, "seqlen": 8}  # noqa: RUF012

        def __post_init__(self) -> None:
            raise ZeroDivisionError("by\nzero")

    with pytest.raises(
        ConfigError, match="task 'raises' raised ZeroDivisionError when built: by zero"
    ):
        make_task("raises")


def test_batches_are_joined_and_mapped_with_all_that_they_hold() -> None:
    inputs = torch.arange(6).reshape(2, 3)
    plain = Batch(inputs, inputs + 10, inputs + 20)
    assert Batch.joined([plain, plain]).also is None
    assert plain.map(lambda tensor: tensor[:1]).also is None
    several = Batch(inputs, inputs + 10, inputs + 20, inputs[..., None] + 30)
    whole = Batch.joined([several, several]).map(lambda tensor: tensor[1:])
    assert whole.dense_targets.tolist() == (inputs + 20).repeat(2, 1)[1:].tolist()
    assert whole.also is not None
    assert whole.also[..., 0].tolist() == (inputs + 30).repeat(2, 1)[1:].tolist()


def test_any_accepted_token_matches() -> None:
    answers, targets = torch.tensor([1, 2, 3]), torch.tensor([1, 1, IGNORE])
    also = torch.tensor([[IGNORE, IGNORE], [IGNORE, 2], [4, 5]])
    assert matches(answers, targets).tolist() == [True, False, False]
    assert matches(answers, targets, also).tolist() == [True, True, False]


def test_sizes_may_depend_on_options(clean_registry: None) -> None:
    @register_task("of-a-size")
    @dataclass(frozen=True)
    class Sized(Recall):
        more: int = 0

        @classmethod
        def sizes(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
            return {"vocab_size": 10 + options["more"], "seqlen": 64}

    assert make_task("of-a-size").vocab_size == 10
    assert make_task("of-a-size", more="5").vocab_size == 15
    assert make_task("of-a-size", more=5, vocab_size=40).vocab_size == 40


def test_the_least_length_shrinks_with_the_length() -> None:
    @dataclass(frozen=True)
    class Varying(Counting):
        min_seqlen: int = 0

    task = Varying(8, 64, min_seqlen=16)
    assert [task.easier(n).min_seqlen for n in (32, 16, 8)] == [16, 16, 8]
    assert Varying(8, 64).easier(8).min_seqlen == 0


def test_names_of_make_task_are_no_parameters() -> None:
    assert task_parameters({"min_distance": 3}) == {"min_distance": 3}
    for name in ("seqlen", "vocab_size", "name"):
        with pytest.raises(ConfigError, match=name):
            task_parameters({name: 3})


@pytest.mark.usefixtures("clean_registry")
@pytest.mark.parametrize("cls", [_Plain, _Slots, _Held])
def test_a_class_beside_task_gets_what_it_lacks_and_keeps_its_name(cls: Any) -> None:
    register_task("own")(cls)
    task = make_task("own", vocab_size=4, seqlen=6)
    assert isinstance(task, Task)
    assert isinstance(task, cls)
    assert (type(task).__name__, repr(task)) == (cls.__name__, repr(cls(4, 6)))
    assert type(task).__module__ == __name__
    assert (task.version, task.defaults, task.train_is_test) == (1, {}, False)
    assert (task.input_seqlen, task.shortcuts, task.vocab_name) == (6, {}, "vocab_size")
    assert task.window_guess(torch.zeros(2, 3), torch.tensor([3, 4])).tolist() == [-1, -1]
    assert task.describe(3) == "3"
    assert not isinstance(cls(4, 6), Task)  # the user's class is as it was
    assert pickle.loads(pickle.dumps(task)) == task == make_task("own", vocab_size=4, seqlen=6)
    assert type(replace(task, seqlen=3)) is type(task)  # type: ignore[type-var]


@pytest.mark.usefixtures("clean_registry")
def test_members_that_a_class_has_of_itself_stay() -> None:
    register_task("slots")(_Slots)
    register_task("held")(_Held)
    slots = make_task("slots", vocab_size=4, seqlen=6)
    assert (slots.input_dim, slots.chance, slots.easiest_seqlen) == (3, 0.5, 6)
    held = make_task("held", vocab_size=4, seqlen=6)
    assert (held.easiest_seqlen, held.input_dim) == (2, 0)
    assert as_task(held.easier(2), "task 'held'").version == 1


@pytest.mark.usefixtures("clean_registry")
def test_a_factory_may_give_any_task() -> None:
    register_task("far")(lambda vocab_size, seqlen: Recall(vocab_size, seqlen, min_distance=3))
    register_task("plain")(lambda vocab_size, seqlen: _Plain(vocab_size, seqlen))
    register_task("text")(lambda vocab_size, seqlen: "recall")
    assert make_task("far", vocab_size=10, seqlen=8) == Recall(10, 8, 3)
    assert make_task("plain", vocab_size=10, seqlen=8).input_dim == 0
    with pytest.raises(ConfigError, match="task 'text' lacks chance, oracle, sample"):
        make_task("text", vocab_size=10, seqlen=8)


@pytest.mark.usefixtures("clean_registry")
@pytest.mark.parametrize("base", [object, Task])
def test_what_a_task_lacks_is_named(base: type) -> None:
    @register_task("lacking")
    @dataclass(frozen=True)
    class Lacking(base):  # type: ignore[misc]
        vocab_size: int
        seqlen: int
        chance = 0.5

    with pytest.raises(ConfigError, match="task 'lacking' lacks oracle, sample, which mechbench"):
        make_task("lacking", vocab_size=4, seqlen=8)


@pytest.mark.usefixtures("clean_registry")
def test_what_can_be_no_task_is_one_line() -> None:
    register_task("number")(lambda vocab_size, seqlen: True)
    with pytest.raises(ConfigError, match="'number' is a bool: expected a frozen dataclass"):
        make_task("number", vocab_size=4, seqlen=8)


def test_the_base_class_is_public() -> None:
    assert mechbench.Task is Task
