from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.errors import ConfigError
from mechbench.plan.curriculum import (
    STAGE_STEPS,
    STAGE_TOKENS,
    check_budget,
    stage_task,
    stages,
    tokens_before_full,
)
from mechbench.record.config import default_batch_size, default_budget_tokens
from mechbench.tasks.arithmetic import Arithmetic
from mechbench.tasks.base import Batch, make_task
from mechbench.tasks.induction import Induction
from mechbench.tasks.recall import Recall


def lengths(task: Recall | Induction, curriculum: str = "auto") -> list[int]:
    return [length for length, _ in stages(task, curriculum, None)]


def test_lengths_grow_fourfold_from_the_easiest_and_end_at_the_tasks() -> None:
    assert lengths(Recall(20, 131072)) == [128, 512, 2048, 8192, 32768, 131072]
    assert lengths(Recall(20, 1000)) == [128, 512, 1000]
    assert lengths(Induction(20, 64)) == [32, 64]


@pytest.mark.parametrize("seqlen", [64, 128])
def test_task_that_is_easy_already_has_one_stage(seqlen: int) -> None:
    assert stages(Recall(20, seqlen), "auto", None) == ((seqlen, default_batch_size(seqlen)),)


def test_none_is_full_length_from_the_first_step() -> None:
    assert stages(Recall(20, 4096), "none", None) == ((4096, default_batch_size(4096)),)
    assert stages(Recall(20, 4096), "none", 7) == ((4096, 7),)


def test_batches_shrink_where_sequences_are_long() -> None:
    assert [batch for _, batch in stages(Recall(20, 131072), "auto", None)] == [
        64, 64, 64, 16, 4, 4,
    ]  # fmt: skip
    assert stages(Recall(20, 1 << 20), "auto", None)[-1] == (1 << 20, 1)


def test_batch_size_of_the_user_holds_in_every_stage() -> None:
    assert stages(Recall(20, 600), "auto", 5) == ((128, 5), (512, 5), (600, 5))


def test_task_without_an_easiest_length_has_one_stage() -> None:
    task = Arithmetic(11, 4097)
    assert stages(task, "auto", None) == ((4097, default_batch_size(4097)),)


@given(st.integers(4, 300), st.integers(1, 1 << 17), st.integers(1, 64))
def test_lengths_grow_strictly_and_end_at_the_tasks(v: int, pairs: int, batch: int) -> None:
    for task in (Recall(v, 2 * pairs), Induction(v, 2 * pairs + 2)):
        found = stages(task, "auto", None)
        grown = [length for length, _ in found]
        assert grown == sorted(set(grown))
        assert grown[-1] == task.seqlen
        assert len(grown) == 1 or grown[0] == task.easiest_seqlen
        sizes = [size for _, size in found]
        assert sizes == sorted(sizes, reverse=True)
        assert min(sizes) >= 1
        assert stages(task, "auto", batch) == tuple((length, batch) for length in grown)


@given(st.integers(4, 40), st.integers(1, 600), st.floats(0, 1))
def test_every_stage_of_a_possible_task_is_possible(v: int, pairs: int, far: float) -> None:
    try:
        task = Recall(v, 2 * pairs, min_distance=int(far * (2 * pairs + 1)))
    except ConfigError:
        return
    for length, _ in stages(task, "auto", None):
        shorter = stage_task(task, length)
        assert (shorter.seqlen, shorter.vocab_size) == (length, v)
        batch = shorter.sample(2, torch.Generator().manual_seed(0))
        assert isinstance(batch, Batch)


def test_distances_shrink_with_the_length() -> None:
    assert stage_task(Recall(20, 1024, min_distance=1000), 128) == Recall(20, 128, 125)
    assert stage_task(Recall(20, 1024, min_distance=1025), 128) == Recall(20, 128, 128)


def test_other_parameters_stay() -> None:
    task = Induction(20, 1024, induction_len=4, n_triggers=3)
    assert stage_task(task, 32) == Induction(20, 32, 4, 3)
    assert stage_task(task, 1024) is task


def test_stages_end_at_rows_of_metrics() -> None:
    task = make_task("recall", seqlen=2048)
    curriculum = stages(task, "auto", None)
    rows = [25 * 64 * 130, 25 * 64 * 514]
    least, most = tokens_before_full(task, curriculum, 25)
    assert least == sum(rows)
    tokens = STAGE_STEPS * 64 * 130 + STAGE_TOKENS
    assert tokens <= most < tokens + sum(rows)
    assert tokens_before_full(task, curriculum[-1:], 25) == (0, 0)


def test_budget_holds_a_step_of_every_stage() -> None:
    task = make_task("recall", seqlen=512)
    curriculum = ((64, 64), (256, 64), (512, 8))
    check_budget(task, curriculum[1:2], 64 * 258, 1)
    with pytest.raises(ConfigError) as got:
        check_budget(task, curriculum, 64 * 258 - 1, 1)
    assert str(got.value) == (
        "budget_tokens is 16511: less than one step, 64 sequences at seqlen 256: "
        "expected at least 16512"
    )


def test_budget_reaches_full_length() -> None:
    task = make_task("recall", seqlen=512)
    curriculum = ((64, 64), (256, 64), (512, 8))
    need = 10 * 64 * (66 + 258) + 8 * 514
    check_budget(task, curriculum, need, 10)
    with pytest.raises(ConfigError, match=f"cannot reach 512: expected at least {need}, or curr"):
        check_budget(task, curriculum, need - 1, 10)


@given(st.sampled_from(["recall", "induction"]), st.integers(3, 17), st.sampled_from([None, 3, 64]))
def test_default_budgets_keep_half_of_themselves_for_full_length(
    name: str, log_seqlen: int, batch_size: int | None
) -> None:
    task = make_task(name, vocab_size=8, seqlen=1 << log_seqlen)
    curriculum = stages(task, "auto", batch_size)
    budget = default_budget_tokens(curriculum[-1][1], task.input_seqlen)
    least, most = tokens_before_full(task, curriculum, 25)
    assert least <= most <= budget / 2
