from __future__ import annotations

import dataclasses

import pytest

from mechbench.plan.resolve import resolve, task_of
from mechbench.training.run import Run


def test_run_knows_its_task_at_every_length_and_does_not_change() -> None:
    config, device = resolve("attention", "recall", seqlen=32, eval_seqlens=(16, 64), device="cpu")
    run = Run(config, device, task_of(config))
    assert [(n, task.seqlen) for n, task in run.tasks().items()] == [(16, 16), (32, 32), (64, 64)]
    assert run.tasks()[32] == run.task
    assert (run.group.size, run.console.quiet) == (1, True)
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.device = "cuda"  # type: ignore[misc]
