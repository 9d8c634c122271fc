from __future__ import annotations

import pytest
import torch
from torch import nn

from mechbench.record.config import SCHEDULE
from mechbench.record.config import SCHEDULES as NAMES
from mechbench.training.named_schedules import SCHEDULES
from mechbench.training.schedules import Cosine


def test_a_configuration_may_name_them_all_and_none_knows_the_budget() -> None:
    assert tuple(SCHEDULES) == NAMES
    assert SCHEDULE in SCHEDULES
    assert Cosine not in SCHEDULES.values()


@pytest.mark.parametrize("name", NAMES)
def test_each_is_made_of_a_model_its_optimizer_and_the_steps_of_the_warm_up(name: str) -> None:
    model = nn.Linear(2, 2)
    optimizer = SCHEDULES[name].optimizer(model, 1e-2, 0.1)
    schedule = SCHEDULES[name](model, optimizer, 4)
    assert [schedule.factor(step, 0) for step in range(5)] == [0.25, 0.5, 0.75, 1, 1]
    with schedule.weights():
        assert all(torch.isfinite(p).all() for p in model.parameters())
    assert not schedule.branching
