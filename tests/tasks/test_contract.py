from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import pytest
import torch

from mechbench.catalogue.registry import MEASURES, TASKS
from mechbench.data.baselines import shortcut_accuracies
from mechbench.errors import ConfigError
from mechbench.plan.curriculum import stage_task, stages
from mechbench.tasks.base import IGNORE, UNKNOWN, Task, make_task, matches

BUILT_IN = [n for n in TASKS.names() if TASKS.entry(n).origin == "built-in"]
pytestmark = pytest.mark.parametrize("name", BUILT_IN)


def generator(seed: int = 0, device: str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


# Vocabulary and length: small, large and odd ones; a task takes part in those that it can have.
GENERIC = ((4, 4), (11, 7), (41, 200), (40, 201), (33, 66), (9, 36), (2, 20))


def accepted(name: str, *given: tuple[int, int], **params: Any) -> list[Task]:
    """Return the task at every (vocab_size, seqlen) of `given` that it can have."""
    made = []
    for vocab_size, seqlen in given:
        with contextlib.suppress(ConfigError):
            made.append(make_task(name, vocab_size=vocab_size, seqlen=seqlen, **params))
    return made


def numbers(task: Task) -> bool:
    return getattr(task, "input_dim", 0) > 0


def settings(name: str) -> list[Task]:
    made = [make_task(name), *accepted(name, *GENERIC)]
    assert len(made) >= 3
    return made


def test_batches_have_one_shape_and_type_with_tokens_in_range(name: str, device: str) -> None:
    for task in settings(name):
        batch = task.sample(5, generator(device=device))
        for tensor in (batch.inputs, batch.targets, batch.dense_targets):
            assert tensor.shape[:2] == (5, task.input_seqlen)
            assert tensor.dtype == (torch.float32 if numbers(task) else torch.int64)
            assert tensor.device.type == device
            assert tensor.is_contiguous()
        assert batch.targets.ndim == batch.dense_targets.ndim == 2
        if batch.also is not None:
            assert batch.also.shape[:2] == batch.inputs.shape
            assert (batch.also.dtype, batch.also.device.type) == (torch.int64, device)
            assert ((batch.also == IGNORE) | (batch.also >= 0)).all()
            assert batch.also.max() < task.vocab_size
        if numbers(task):
            assert batch.inputs.shape[2:] == (task.input_dim,)
            assert batch.inputs.isfinite().all()
            continue
        assert batch.inputs.ndim == 2
        assert batch.inputs.min() >= 0
        assert batch.inputs.max() < task.vocab_size
        for targets in (batch.targets, batch.dense_targets):
            answers = targets[targets != IGNORE]
            assert answers.min() >= 0
            assert answers.max() < task.vocab_size


def test_oracle_solves_every_target(name: str, device: str) -> None:
    for task in settings(name):
        batch = task.sample(64, generator(device=device))
        answers = task.oracle(batch.inputs)
        assert answers.shape == batch.targets.shape
        for targets in (batch.targets, batch.dense_targets):
            scored = targets != IGNORE
            assert matches(answers, targets, batch.also)[scored].all()


def test_every_example_is_scored_and_targets_are_part_of_the_dense_ones(name: str) -> None:
    for task in settings(name):
        batch = task.sample(64, generator())
        scored = batch.targets != IGNORE
        assert scored.any(1).all()
        assert torch.equal(batch.dense_targets[scored], batch.targets[scored])


def test_only_the_generator_makes_randomness(name: str) -> None:
    task = make_task(name)
    state = torch.get_rng_state()
    one, same, other = (task.sample(8, generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    for field in ("inputs", "targets", "dense_targets", "also"):
        first, second = getattr(one, field), getattr(same, field)
        assert first is second is None or torch.equal(first, second)
    assert not torch.equal(one.inputs, other.inputs)


def test_chance_is_the_accuracy_of_guessing_among_the_answers(name: str) -> None:
    task = accepted(name, (9, 64), (9, 63), (40, 64))[0]
    batch = task.sample(4000, generator())
    answers = batch.targets[batch.targets != IGNORE]
    if numbers(task):  # the guess is zero
        share = matches(answers * 0, answers).double().mean().item()
        assert share == pytest.approx(task.chance, abs=0.02)
        return
    counts = torch.bincount(answers)
    if batch.also is not None:  # a guess may be right in several ways
        ways = torch.cat([batch.targets[..., None], batch.also], 2)[batch.targets != IGNORE]
        distinct = [len({*row} - {IGNORE}) for row in ways.tolist()]
        right = sum(distinct) / len(distinct)
        assert right / len(counts[counts > 0]) == pytest.approx(task.chance, rel=0.1)
        return
    assert len(counts[counts > 0]) == round(1 / task.chance)
    if "most frequent answer" in task.shortcuts:
        found = shortcut_accuracies(task, batch)["most frequent answer"]
        assert found == pytest.approx(counts.max().item() / len(answers), abs=0.02)
        return
    torch.testing.assert_close(
        counts[counts > 0] / len(answers),
        torch.full((round(1 / task.chance),), task.chance, dtype=torch.float32),
        rtol=0,
        atol=0.03,
    )


def test_shortcuts_run_and_do_not_solve_the_task(name: str) -> None:
    for task in (make_task(name), accepted(name, (40, 256), (40, 255))[0]):
        batch = task.sample(500, generator())
        found = shortcut_accuracies(task, batch)
        assert found
        for shortcut, accuracy in found.items():
            assert task.shortcuts[shortcut](batch.inputs).shape == batch.targets.shape
            assert accuracy < 0.99, shortcut
        assert max(found.values()) > task.chance - 0.05


def test_oracle_is_never_wrong_on_a_window_and_sees_all_in_the_whole(name: str) -> None:
    for task in settings(name):
        batch = task.sample(32, generator(1))
        columns = (batch.targets != IGNORE).any(0).nonzero().flatten().tolist()
        for column in columns[:: -(-len(columns) // 5)]:
            rows = batch.targets[:, column] != IGNORE
            inputs, answers = batch.inputs[rows, : column + 1], batch.targets[rows, column]
            also = None if batch.also is None else batch.also[rows, column]
            for window in {1, 2, 3, column // 4, column // 2, column - 1, column} & {
                *range(1, 999)
            }:
                guess = task.oracle(inputs[:, -window:])[:, -1]
                assert matches(guess, answers, also)[guess != UNKNOWN].all()
            whole = task.oracle(batch.inputs[rows])[:, column]
            assert matches(whole, answers, also).all()


def test_oracle_tells_nothing_from_one_token(name: str) -> None:
    task = make_task(name)
    batch = task.sample(8, generator())
    scored = (batch.targets != IGNORE).any(0).nonzero()[0].item()
    seen = batch.inputs[:, scored : scored + 1]
    assert (task.oracle(seen)[:, -1] == UNKNOWN).all()


def test_every_token_has_its_own_text(name: str) -> None:
    task = make_task(name)
    if numbers(task):
        points = task.sample(1, generator()).inputs[0].tolist()
        assert all(task.describe(point) for point in points)
        return
    task = make_task(name, vocab_size=30)
    assert len({task.describe(token) for token in range(30)}) == 30


def test_equal_parameters_make_equal_tasks_and_text_tells_parameters(name: str) -> None:
    one, other, *_ = accepted(name, *GENERIC)
    assert one == make_task(name, vocab_size=one.vocab_size, seqlen=one.seqlen)
    assert repr(one) != repr(other)
    with pytest.raises(AttributeError):
        make_task(name).seqlen = 3


def test_what_is_kept_apart_is_over_where_a_task_scores(name: str) -> None:
    """Or a test example could ask what an example of training with the same beginning has told."""
    for task in settings(name):
        assert 1 <= task.apart_by <= task.input_seqlen
        if task.apart_by < task.input_seqlen:
            scored = (task.sample(16, generator()).targets != IGNORE).any(0).nonzero()
            assert scored.min() + 1 >= task.apart_by


def test_lengths_vary_as_asked(name: str) -> None:
    task = make_task(name)
    if "min_seqlen" not in {field.name for field in dataclasses.fields(task)}:
        assert task.min_seqlen == 0
        return
    assert task.min_seqlen == 0  # by default
    for least in range(1, task.seqlen):
        with contextlib.suppress(ConfigError):
            varied = make_task(name, min_seqlen=least)
            break
    batch = varied.sample(256, generator())
    last = (batch.targets != IGNORE).int().flip(1).argmax(1)  # tokens behind the last scored one
    assert len(last.unique()) > 1
    assert (
        last.min() == (task.sample(64, generator()).targets != IGNORE).int().flip(1).argmax(1).min()
    )
    assert varied.easier(least).min_seqlen == least


def test_catalogue_entry_is_complete(name: str) -> None:
    entry = TASKS.entry(name)
    assert entry.summary.endswith(".")
    assert entry.source
    assert entry.measures in MEASURES
    assert TASKS.load(name).version >= 1


def test_every_stage_of_the_curriculum_can_be_had(name: str) -> None:
    for long in accepted(name, (20, 3072), (20, 3073)):
        lengths = [seqlen for seqlen, _ in stages(long, "auto", None)]
        assert lengths == sorted(lengths)
        for seqlen in lengths:
            batch = stage_task(long, seqlen).sample(2, generator())
            assert (batch.targets != IGNORE).any(1).all()
