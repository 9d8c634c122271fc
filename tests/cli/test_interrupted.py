from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any

import pytest

from mechbench.cli.interrupted import end_if_interrupted


def test_a_signal_ends_the_command_and_says_what_is_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan: Any = SimpleNamespace(todo=[1, 2], waiting=[3])
    end_if_interrupted(plan, None)
    assert capsys.readouterr().err == ""
    with pytest.raises(SystemExit) as stop:
        end_if_interrupted(plan, signal.SIGTERM)
    assert stop.value.code == 128 + signal.SIGTERM
    said = "mechbench: interrupted with 3 cells to go; the same command continues\n"
    assert capsys.readouterr().err == said
