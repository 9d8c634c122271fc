from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from checks import broken_operators as broken
from checks.broken_operators import model
from torch import Tensor

from mechbench.errors import OperatorError
from mechbench.training.gate.contract import breach, guarded
from mechbench.training.gate.watchdog import Watchdog

pytestmark = pytest.mark.usefixtures("clean_registry")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (lambda u: u[:, :-1], r"returned shape \(2, 4, 3\): expected \(2, 5, 3\)"),
        (lambda u: u.transpose(1, 2), r"returned shape \(2, 3, 5\): expected \(2, 5, 3\)"),
        (lambda u: (u, None), r"returned a tuple: expected a tensor of shape \(2, 5, 3\)"),
        (lambda u: None, "returned a NoneType: expected a tensor"),
        (lambda u: u.double(), "returned torch.float64 for an input of torch.float32"),
        (lambda u: u.long(), "returned torch.int64 for an input of torch.float32"),
        (lambda u: u.to(torch.complex64), "returned torch.complex64 for an input of"),
        (lambda u: u.to("meta"), "returned a tensor on meta: expected cpu"),
    ],
)
def test_breach_is_said_with_what_was_expected(answer: Callable[[Tensor], Any], text: str) -> None:
    u = torch.ones(2, 5, 3)
    found = breach(u, answer(u))
    assert found is not None
    assert re.match(text, found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_half_types_are_taken_as_autocast_gives_them(dtype: torch.dtype) -> None:
    u = torch.ones(2, 5, 3)
    assert breach(u, u.to(dtype)) is None
    assert breach(u.to(dtype), u) is None
    assert breach(u.double(), u.double()) is None


def test_breach_after_some_steps_names_the_operator() -> None:
    built = model(broken.WrongLater).train()
    tokens = torch.zeros(2, 8, dtype=torch.int64)
    broken.WrongLater.steps = 0
    with guarded(built, "mine"):
        built(tokens)
        broken.WrongLater.steps = 1000
        with pytest.raises(OperatorError, match=r"operator 'mine' returned shape \(2, 7, 8\)"):
            built(tokens)


def test_watchdog_hears_of_calls_and_of_the_step_that_follows() -> None:
    heard: list[str] = []

    class Dog(Watchdog):
        def busy(self, what: str) -> None:
            heard.append(what)

        def idle(self) -> None:
            heard.append("idle")

    built = model(broken.Base)
    tokens = torch.zeros(2, 8, dtype=torch.int64)
    with guarded(built, "mine", Dog("mine", heard.append)):
        built(tokens)
        assert heard == ["forward at L=8", "backward at L=8"] * 2  # two layers
        with torch.no_grad():
            built(tokens)
        assert heard[4:] == ["forward at L=8", "idle"] * 2
    heard.clear()
    built(tokens)
    assert not heard
