from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mechbench.record.outcome import CellOutcome
from mechbench.record.results import read_result
from mechbench.report.summary import summary

Store = Callable[..., Path]


def text(path: Path, **changes: Any) -> list[str]:
    if changes:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return summary(read_result(path)).splitlines()


def test_summary_of_a_good_run(store: Store) -> None:
    path = store({64: 0.9, 128: 0.5}, seed=3, solved=True)
    assert text(path) == [
        "hyena on recall: seqlen 64, vocab_size 20, d_model 64, 2 layers, seed 3",
        "  accuracy at      64  90.00% [87.98%, 91.71%]  (1000 scored; 1 seed; chance 10.0%; "
        "most frequent value 20.0%; every predictable position 90.00%)",
        "  accuracy at     128  50.00% [46.91%, 53.09%]  (1000 scored; 1 seed; chance 10.0%; "
        "most frequent value 20.0%; every predictable position 50.00%)",
        "  solved after 100 steps, 0.0 M tokens, 1.5 s at 200 k tokens/s, peak 64 MiB",
        f"  stored in {path.parent}",
    ]


def test_summary_names_a_short_convolution(store: Store) -> None:
    assert text(store(short_conv=4))[0].endswith("2 layers, short_conv 4, seed 0")


@pytest.mark.parametrize("status", ["diverged", "out-of-memory", "error"])
def test_failure_is_said_loudly_with_its_reason(store: Store, status: str) -> None:
    path = store({}, status=status, reason="because")
    lines = text(path, steps=0, tokens_per_s=None, peak_memory_mib=None, causal=None)
    assert lines[1:] == [
        f"  {status.upper()}: because",
        "  not solved after 0 steps, 0.0 M tokens, 1.5 s",
        f"  stored in {path.parent}",
    ]


def test_look_ahead_is_marked_and_unmeasured_is_not(store: Store) -> None:
    path = store()
    mark = "  NOT CAUSAL: it looks ahead, so it is not ranked"
    assert mark in text(path, causal=False)
    assert mark not in text(path, causal=None)
    assert mark not in text(path, causal=True)


def test_task_without_a_shortcut(store: Store) -> None:
    path = store()
    evaluations = json.loads(path.read_text())["evaluations"]
    lines = text(path, evaluations=[{**evaluations[0], "shortcuts": {}}])
    assert "chance 10.0%; none 0.0%; every predictable" in lines[1]


def test_memory_of_the_training_data_is_called_so(store: Store) -> None:
    line = "  training and test ask the same questions, by the task's definition"
    path = store({64: 0.9})
    assert line not in text(path)
    assert line not in text(path, train_is_test=False)
    assert text(path, train_is_test=True)[1] == line


def test_what_an_older_result_does_not_say_is_left_out(store: Store) -> None:
    path = store({64: 0.9}, operator="a\n\x1b[2J")
    data = json.loads(path.read_text())
    for name in ("solved", "causal", "steps", "train_tokens", "tokens_per_s", "seconds"):
        del data[name]
    path.write_text(json.dumps(data | {"peak_memory_mib": None}))
    lines = text(path)
    assert lines[0].startswith("a \\x1b[2J on recall: ")
    assert lines[2:] == [
        "  not solved after 0 steps, 0.0 M tokens, 0.0 s", f"  stored in {path.parent}"
    ]  # fmt: skip


def test_outputs_that_are_not_finite_are_no_accuracy(store: Store) -> None:
    path = store({64: 0.0})
    evaluations = json.loads(path.read_text())["evaluations"]
    lines = text(path, evaluations=[{**evaluations[0], "non_finite": 7}])
    assert lines[1].startswith("  accuracy at      64  NAN (7 outputs are not finite)  (1000 scor")


def test_a_task_says_what_its_vocabulary_is(store: Store) -> None:
    path = store({64: 0.9}, task="icl-functions", vocab_size=5)
    assert text(path)[0].startswith("hyena on icl-functions: seqlen 64, dimensions 5, d_model 64")


@pytest.mark.parametrize(
    ("slopes", "trend", "line"),
    [
        ((0.031, 0.01, 0.0524), "rising", "rising: +3.1 [+1.0, +5.2] points a doubling of tokens"),
        ((0.0, -0.01, 0.01), "flat", "flat: +0.0 [-1.0, +1.0] points a doubling of tokens"),
        ((-0.2, -0.3, -0.1), None, "unclear: -20.0 [-30.0, -10.0] points a doubling of tokens"),
    ],
)
def test_what_is_not_solved_has_a_trend(
    store: Store, slopes: tuple[float, float, float], trend: str | None, line: str
) -> None:
    outcome = CellOutcome("censored", 5000, 0.995, 0.5, 512, 40, *slopes, trend)
    path = store()
    lines = text(path, outcome=outcome.to_dict())
    assert lines[-2] == f"  validation accuracy was {line}, over their last half"
    outcome = dataclasses.replace(outcome, dense_slope=0.012)
    lines = text(path, outcome=outcome.to_dict())
    assert lines[-2].endswith("over their last half; over every predictable position +1.2")
    assert not any("doubling" in line for line in text(store(seed=1)))
