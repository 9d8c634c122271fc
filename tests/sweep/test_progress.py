from __future__ import annotations

from dataclasses import replace

import pytest

from mechbench.plan.suite import Cell
from mechbench.record.config import Config
from mechbench.sweep.progress import SweepProgress, describe, outcome

CONFIG = Config("hyena", "recall", budget_tokens=10, seqlen=64, lr=1e-3, seed=2)
CELL = Cell(CONFIG, "0123", "g", {})
OK = {
    "status": "ok", "config": CONFIG.to_dict(), "seconds": {"train": 1.25},
    "evaluations": [{"seqlen": 128, "accuracy": 0.1}, {"seqlen": 64, "accuracy": 0.987}],
}  # fmt: skip


def test_cell_and_outcome_in_words() -> None:
    assert describe(CELL) == "hyena on recall at 64, V 20, lr 0.001, seed 2 (0123)"
    other = replace(CELL, config=replace(CELL.config, task="icl-functions", vocab_size=5))
    assert describe(other) == "hyena on icl-functions at 64, dimensions 5, lr 0.001, seed 2 (0123)"
    assert outcome(OK) == "accuracy 98.7% after 1.2 s"
    assert outcome({"status": "error", "reason": "bad"}) == "error: bad"


def test_lines_without_a_terminal_and_warnings_always(capsys: pytest.CaptureFixture[str]) -> None:
    for quiet in (False, True):
        progress = SweepProgress(3, {"other"}, 2, quiet)
        progress.heard(1, {"event": "bar", "total": 10, "initial": 0, "title": "t"})
        progress.heard(1, {"event": "tokens", "tokens": 5})
        progress.heard(1, {"event": "row", "row": {"seqlen": 64, "loss": 1.0}})
        progress.heard(0, {"event": "warn", "text": "look out"})
        progress.finished(CELL, OK, 3)
        progress.close()
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == "mechbench: warning: look out"
        assert lines[1:] == ([] if quiet else [f"[2/3] {describe(CELL)}: {outcome(OK)}"])


def test_bars_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    progress = SweepProgress(3, {"other"}, 1)
    progress.heard(0, {"event": "bar", "total": 10, "initial": 5, "title": "hyena at 64"})
    progress.heard(0, {"event": "row", "row": {"seqlen": 64, "loss": 1.0}})
    progress.close()
    shown = capsys.readouterr().err
    assert "sweep" in shown
    assert "hyena at 64" in shown
    assert "loss=1.000" in shown


def test_a_cell_that_is_carried_on_counts_once(capsys: pytest.CaptureFixture[str]) -> None:
    progress = SweepProgress(2, {"other"}, 1)
    for cell, total in ((CELL, 2), (CELL, 2), (replace(CELL, cell_id="other"), 4)):
        progress.finished(cell, OK, total)
    progress.close()
    starts = [line[:5] for line in capsys.readouterr().err.splitlines()]
    assert starts == ["[2/2]", "[2/2]", "[2/4]"]
