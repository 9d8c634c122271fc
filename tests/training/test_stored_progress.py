from __future__ import annotations

from typing import Any

import pytest

from mechbench.plan.resolve import resolve
from mechbench.training.loop import Progress
from mechbench.training.stored_progress import stored_progress


def config(**settings: Any) -> Any:
    return resolve(
        "attention", "recall", seqlen=16, vocab_size=8, d_model=8, n_layers=1, batch_size=8,
        curriculum="none", budget_tokens=1000, device="cpu", **settings,
    )[0]  # fmt: skip


def test_what_a_run_stores_is_read_as_it_was() -> None:
    progress = Progress(step=3, tokens=384, stage_tokens=384, train_s=1.5, pending=[1, 2, 3])
    assert stored_progress(progress.to_dict(), config()) == progress
    assert stored_progress(Progress().to_dict(), config()) == Progress()


@pytest.mark.parametrize("name", Progress().to_dict())
def test_every_field_must_be_there(name: str) -> None:
    fields = Progress().to_dict()
    del fields[name]
    with pytest.raises(ValueError, match=name):
        stored_progress(fields)


@pytest.mark.parametrize("name", Progress().to_dict())
@pytest.mark.parametrize("value", [None, {}, 1.5e300j, b"1", -1, [[]]])
def test_no_field_takes_another_type(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        stored_progress(Progress().to_dict() | {name: value})


def test_configuration_bounds_the_stage_and_no_budget_the_tokens() -> None:
    fields = Progress(step=2, tokens=1001, stage=1).to_dict()
    assert stored_progress(fields).stage == 1
    with pytest.raises(ValueError, match="stage 1 of 1"):
        stored_progress(fields, config())
    assert stored_progress(fields | {"stage": 0}, config()).tokens == 1001


def test_rows_go_no_further_than_the_run_but_for_steps_that_were_undone() -> None:
    row = {
        "step": 5, "tokens": 600, "seqlen": 16, "loss": 0.5, "train_accuracy": 0.5,
        "validation_accuracy": 0.5, "validation_dense_accuracy": 0.5, "tokens_per_s": 1.0,
        "train_s": 0.1, "branch": 1,
    }  # fmt: skip
    fields = Progress(step=4, tokens=700, metrics=[row]).to_dict()
    assert stored_progress(fields, config(schedule="wsd")).metrics == [row]
    for given in (None, config()):
        with pytest.raises(ValueError, match="go beyond its steps"):
            stored_progress(fields, given)
    with pytest.raises(ValueError, match="go beyond its steps or tokens"):
        stored_progress(fields | {"tokens": 599}, config(schedule="wsd"))
