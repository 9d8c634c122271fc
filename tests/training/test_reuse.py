from __future__ import annotations

import dataclasses
import importlib
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

import mechbench
from mechbench.catalogue import sources
from mechbench.catalogue.sources import UNKNOWN, reached
from mechbench.console.progress_bar import Console
from mechbench.errors import ConfigError
from mechbench.record.config import Config
from mechbench.record.results import Result, read_json
from mechbench.training.reuse import (
    built_in_code,
    may_resume,
    must_be_known,
    with_budget,
)


def config(**digests: str) -> Config:
    return Config("mine", "recall", budget_tokens=1, sources=digests)


def test_known_source_is_reused_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "result.json").touch()
    assert may_resume(config(), tmp_path, Console(quiet=True))
    assert may_resume(config(helper="ab12"), tmp_path, Console(quiet=True))
    assert capsys.readouterr().err == ""


def test_sweep_is_not_planned_by_what_cannot_be_known() -> None:
    must_be_known(config(one="ab12"))
    with pytest.raises(ConfigError, match="the source of two is unknown, so a sweep"):
        must_be_known(config(one="ab12", two=UNKNOWN))


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
    assert "the source of two is unknown" in line
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


NOTEBOOK = """
import mechbench, torch
from torch import nn

STATE = 1

@mechbench.register_operator("typed-in")
class Mine(nn.Module):
    def __init__(self, d_model: int, max_seqlen: int) -> None:
        super().__init__()
        self.mix = nn.Linear(d_model, d_model)

    def forward(self, u):
        return 1.0 * self.mix(u) * STATE
"""


@pytest.fixture
def trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_registry: None
) -> Callable[[str], Result]:
    """Execute text as a notebook does and train its operator, as in a pipe."""

    def trained(text: str) -> Result:
        main = types.ModuleType("__main__")
        monkeypatch.setitem(sys.modules, "__main__", main)
        exec(compile(text, "<cell>", "exec"), main.__dict__)
        return mechbench.run(
            "typed-in", "recall", seqlen=8, vocab_size=8, d_model=8, n_layers=1,
            budget_tokens=1000, n_validation=16, n_test=16, device="cpu", out=tmp_path,
        )  # fmt: skip

    return trained


def test_edited_cell_of_a_notebook_is_trained_and_not_read(
    trained: Callable[[str], Result], capsys: pytest.CaptureFixture[str]
) -> None:
    one = trained(NOTEBOOK)
    written = one.path.stat().st_mtime_ns
    assert trained(NOTEBOOK).path.stat().st_mtime_ns == written  # the same: read
    edited = trained(NOTEBOOK.replace("1.0 *", "0.0 *"))
    assert edited.cell_id != one.cell_id
    assert trained(NOTEBOOK.replace("STATE = 1", "STATE = 2")).cell_id != one.cell_id
    assert "warning" not in capsys.readouterr().err


def test_cell_whose_source_cannot_be_known_runs_again_and_says_so(
    trained: Callable[[str], Result], capsys: pytest.CaptureFixture[str]
) -> None:
    text = NOTEBOOK.replace("STATE = 1", "STATE = torch.ones(())")
    one = trained(text)
    assert one.config["sources"] == {"__main__:Mine": UNKNOWN}
    assert capsys.readouterr().err == ""
    written = one.path.stat().st_mtime_ns
    two = trained(text.replace("ones", "zeros"))
    assert two.path == one.path
    assert two.path.stat().st_mtime_ns != written
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "the source of __main__:Mine is unknown" in err


def test_only_a_decided_result_takes_a_larger_budget_into_its_files(tmp_path: Path) -> None:
    path, asked = tmp_path / "result.json", config()
    data = {"status": "ok", "solved": False, "config": asked.to_dict()}
    larger = dataclasses.replace(asked, budget_tokens=7)
    for decided, expected in ((False, 1), (True, 7)):
        stored = Result(path, {**data, "solved": decided})
        found = with_budget(stored, larger)
        assert found.config["budget_tokens"] == expected
        assert path.exists() == path.with_name("config.json").exists() == decided
        assert stored.config["budget_tokens"] == 1
    assert read_json(path) == found.data
    assert read_json(path.with_name("config.json")) == larger.to_dict()
    assert with_budget(found, asked) == found


def test_built_in_code_is_that_of_all_parts_of_an_operator() -> None:
    hybrid = dataclasses.replace(
        config(), operator="hybrid", operator_options={"pattern": "hyena,attention"}
    )
    found = built_in_code(hybrid)
    assert {"mechbench.operators.hyena", "mechbench.operators.attention"} <= found.keys()
    assert all(len(digest) == 64 for digest in found.values())
    hyena = dataclasses.replace(config(), operator="hyena", operator_options={"filter": "fno"})
    assert "mechbench.filters.fno" in built_in_code(hyena)
