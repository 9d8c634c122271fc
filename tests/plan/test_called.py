from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

import mechbench
from mechbench.catalogue.registry import OPERATORS
from mechbench.errors import ConfigError, PluginError
from mechbench.operators.attention import Attention
from mechbench.plan.called import task_called
from mechbench.tasks.recall import Recall

pytestmark = pytest.mark.usefixtures("clean_registry")
NOTHING = dict.fromkeys(("seqlen", "vocab_size", "task_options"))


class MyRNNCell2(nn.Linear):
    def __init__(self, d_model: int, max_seqlen: int) -> None:
        super().__init__(d_model, d_model)


def plain_mix(d_model: int, max_seqlen: int) -> nn.Module:
    return nn.Linear(d_model, d_model)


@pytest.mark.parametrize(
    ("operator", "name"),
    [
        ("hyena", "hyena"), (Attention, "attention"), (MyRNNCell2, "my-rnn-cell2"),
        (plain_mix, "plain-mix"), (3, 3),
    ],
)  # fmt: skip
def test_an_operator_may_be_its_class(operator: Any, name: Any) -> None:
    assert OPERATORS.named(operator) == name
    assert OPERATORS.named(operator) == name  # registered by then
    if isinstance(name, str):
        assert name in OPERATORS.names()


def test_what_has_no_name_or_another_ones_is_refused() -> None:
    with pytest.raises(PluginError, match="operator name '<lambda>' is not possible"):
        OPERATORS.named(lambda d_model, max_seqlen: nn.Identity())

    with pytest.raises(PluginError, match=r"operator name 'functools\.partial.* is not possible"):
        OPERATORS.named(functools.partial(plain_mix, 3))

    class Hyena(nn.Module):
        def forward(self, u: Tensor) -> Tensor:
            return u

    with pytest.raises(PluginError, match="operator 'hyena' is registered twice"):
        OPERATORS.named(Hyena)


def test_a_task_may_be_its_class_or_an_object() -> None:
    assert task_called("recall", {"seqlen": 32}) == ("recall", {"seqlen": 32})
    assert task_called(Recall, NOTHING) == ("recall", NOTHING)
    name, given = task_called(Recall(20, 64, min_distance=16), NOTHING)
    assert (name, given["seqlen"], given["vocab_size"]) == ("recall", 64, 20)
    assert given["task_options"] == {"min_distance": 16}
    with pytest.raises(ConfigError, match="seqlen is given beside a task object"):
        task_called(Recall(20, 64), NOTHING | {"seqlen": 32})


def test_a_run_of_objects_is_the_run_of_their_names(tmp_path: Path) -> None:
    small = {"d_model": 16, "n_layers": 1, "budget_tokens": 30_000, "device": "cpu", "quiet": True}
    named = mechbench.run(
        "attention", "recall", seqlen=16, vocab_size=8, task_options={"min_distance": 4},
        out=tmp_path, **small,
    )  # fmt: skip
    again = mechbench.run(Attention, Recall(8, 16, min_distance=4), out=tmp_path, **small)
    assert again == named
    own = mechbench.run(MyRNNCell2, Recall, seqlen=16, vocab_size=8, out=tmp_path, **small)
    assert (own.config["operator"], own.status) == ("my-rnn-cell2", "ok")
