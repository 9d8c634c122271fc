from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from mechbench import sources
from mechbench.progress_bar import Console
from mechbench.reuse import may_resume
from mechbench.sources import UNKNOWN, reached
from mechbench.spec import Config


def config(**digests: str) -> Config:
    return Config("mine", "recall", budget_tokens=1, sources=digests)


def test_known_source_is_reused_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "result.json").touch()
    assert may_resume(config(), tmp_path, Console(quiet=True))
    assert may_resume(config(helper="ab12"), tmp_path, Console(quiet=True))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("stored", ["result.json", "checkpoint.pt"])
def test_unknown_source_is_not_reused_and_that_is_said(
    tmp_path: Path, stored: str, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = config(one="ab12", two=UNKNOWN)
    assert not may_resume(unknown, tmp_path, Console(quiet=True))
    assert capsys.readouterr().err == ""  # there is nothing to reuse
    (tmp_path / stored).touch()
    assert not may_resume(unknown, tmp_path, Console(quiet=True))
    (line,) = capsys.readouterr().err.splitlines()
    assert "the source of two cannot be known" in line
    assert "the cell runs again" in line


def test_file_edited_after_its_import_is_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sources, "_SEEN", {})
    path = tmp_path / "edited_later.py"
    path.write_text("X = 1\n")
    importlib.import_module("edited_later")
    found = reached(["edited_later"])
    path.write_text("X = 2\n")
    assert may_resume(config(**found), tmp_path, Console(quiet=True))  # its id is the old code's
    (line,) = capsys.readouterr().err.splitlines()
    assert "edited_later was edited after it was imported" in line
    del sys.modules["edited_later"]
