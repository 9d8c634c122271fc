from __future__ import annotations

import re

import pytest

from cli.conftest import CommandLine


def test_task_is_drawn_with_chance_shortcuts_and_required_context(mechbench: CommandLine) -> None:
    text = mechbench.works("show", "recall", "--seqlen", "32").stdout
    positions = [int(p) for row in re.findall(r"^position (.*)", text, re.M) for p in row.split()]
    assert positions == list(range(34))
    figures = {
        name: float(percent)
        for name, percent in re.findall(r"^(\w[\w ]*?) +([\d.]+)%(?:$|  \[)", text, re.M)
    }
    shortcuts = {"most frequent value", "last value", "first value"}
    assert set(figures) == {"chance", "oracle"} | shortcuts
    assert figures["chance"] == pytest.approx(100 / 9, abs=0.05)  # nine values at V = 20
    assert figures["oracle"] == 100
    assert all(figures["chance"] < figures[name] < 60 for name in shortcuts)
    windows = re.search(r"^W +(.*)\naccuracy +(.*)$", text, re.M)
    assert windows is not None
    assert windows[1].split() == ["16", "32", "34"]
    reached = [float(a.rstrip("%")) for a in windows[2].split()]
    assert reached == sorted(reached)
    assert reached[0] < 100
    assert reached[-1] == 100


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("recal",), "unknown task 'recal': did you mean 'recall'?"),
        (("recall", "--seqlen", "7"), "seqlen is 7: recall needs an even number"),
        (("recall", "--task-option", "distance=3"), "did you mean 'min_distance'?"),
        (("recall", "--task-option", "min_distance=far"), "'far': expected a whole number"),
        (("recall", "--examples", "0"), "examples is 0: expected at least 1"),
        ((), "Missing argument 'TASK'."),
    ],
)
def test_bad_arguments_are_one_line(
    mechbench: CommandLine, args: tuple[str, ...], message: str
) -> None:
    assert message in mechbench.error("show", *args)
