from __future__ import annotations

import pytest
import torch

from mechbench.registry import TASKS
from mechbench.tasks.base import IGNORE, UNKNOWN, Task, make_task
from mechbench.tasks.baselines import shortcut_accuracies

BUILT_IN = [n for n in TASKS.names() if TASKS.entry(n).origin == "built-in"]
pytestmark = pytest.mark.parametrize("name", BUILT_IN)


def generator(seed: int = 0, device: str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def settings(name: str) -> list[Task]:
    return [
        make_task(name),
        make_task(name, vocab_size=4, seqlen=4),
        make_task(name, vocab_size=41, seqlen=200),
    ]


def test_batches_are_int64_of_one_shape_with_tokens_in_range(name: str, device: str) -> None:
    for task in settings(name):
        batch = task.sample(5, generator(device=device))
        for tensor in (batch.inputs, batch.targets, batch.dense_targets):
            assert tensor.shape == (5, task.input_seqlen)
            assert tensor.dtype == torch.int64
            assert tensor.device.type == device
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
        assert answers.shape == batch.inputs.shape
        for targets in (batch.targets, batch.dense_targets):
            scored = targets != IGNORE
            assert torch.equal(answers[scored], targets[scored])


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
    for field in ("inputs", "targets", "dense_targets"):
        assert torch.equal(getattr(one, field), getattr(same, field))
    assert not torch.equal(one.inputs, other.inputs)


def test_chance_is_the_accuracy_of_guessing_among_the_answers(name: str) -> None:
    task = make_task(name, vocab_size=8, seqlen=64)
    batch = task.sample(4000, generator())
    answers = batch.targets[batch.targets != IGNORE]
    counts = torch.bincount(answers, minlength=8)
    assert len(counts[counts > 0]) == round(1 / task.chance)
    torch.testing.assert_close(
        counts[counts > 0] / len(answers),
        torch.full((round(1 / task.chance),), task.chance),
        rtol=0,
        atol=0.03,
    )


def test_shortcuts_run_and_do_not_solve_the_task(name: str) -> None:
    task = make_task(name, vocab_size=20, seqlen=256)
    batch = task.sample(500, generator())
    found = shortcut_accuracies(task, batch)
    assert found
    for shortcut, accuracy in found.items():
        assert task.shortcuts[shortcut](batch.inputs).shape == batch.inputs.shape
        assert task.chance - 0.05 < accuracy < 0.6, shortcut


def test_oracle_tells_nothing_from_one_token(name: str) -> None:
    task = make_task(name)
    batch = task.sample(8, generator())
    scored = (batch.targets != IGNORE).any(0).nonzero()[0].item()
    seen = batch.inputs[:, scored : scored + 1]
    assert (task.oracle(seen)[:, -1] == UNKNOWN).all()


def test_every_token_has_its_own_text(name: str) -> None:
    task = make_task(name, vocab_size=30)
    assert len({task.describe(token) for token in range(30)}) == 30


def test_equal_parameters_make_equal_tasks_and_text_tells_parameters(name: str) -> None:
    assert make_task(name, seqlen=64) == make_task(name, seqlen=64)
    assert repr(make_task(name, seqlen=64)) != repr(make_task(name, seqlen=128))
    with pytest.raises(AttributeError):
        make_task(name).seqlen = 3


def test_catalogue_entry_is_complete(name: str) -> None:
    entry = TASKS.entry(name)
    assert entry.summary.endswith(".")
    assert entry.source
    assert TASKS.load(name).version >= 1
