from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from leaderboard.conftest import train
from leaderboard.forgeries import rehash, score
from mechbench.cli.leaderboard import command
from mechbench.errors import ConfigError, ResultError
from mechbench.leaderboard import verify as module
from mechbench.leaderboard.verify import Comparison, compare, verify
from mechbench.report.results_csv import write_rows
from mechbench.report.rows import rows_of

Check = Callable[..., list[Comparison]]


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Results of two cells, and what training them again gives."""
    out = tmp_path_factory.mktemp("measured")
    return [train(out, seed=seed, eval_seqlens=[]) for seed in (0, 1)]


@pytest.fixture
def board(measured: list[dict[str, Any]], tmp_path: Path) -> Callable[..., Path]:
    def write(*changes: Callable[[dict[str, Any]], object]) -> Path:
        results = copy.deepcopy(measured)
        for data, change in zip(results, changes, strict=False):
            change(data)
        folder = tmp_path / "board"
        folder.mkdir()
        write_rows(folder / "results.csv", [row for data in results for row in rows_of(data)])
        return folder

    return write


def test_honest_cells_come_out_the_same(board: Callable[..., Path], tmp_path: Path) -> None:
    folder, out = board(), tmp_path / "out"
    found = list(verify(folder, sample=2, device="cpu", out=out))
    assert [c.outcome for c in found] == ["same", "same"]
    assert found[0].stored == found[0].again
    before = {path: path.read_bytes() for path in out.glob("*/result.json")}
    assert list(verify(folder, sample=9, device="cpu", out=out)) == found  # read, not trained
    assert {path: path.read_bytes() for path in out.glob("*/result.json")} == before
    (one,) = verify(folder, sample=1, device="cpu", out=out)
    assert one in found


def test_raised_accuracy_is_found(board: Callable[..., Path], tmp_path: Path) -> None:
    """Of two cells one claims a single example more: a CPU gives the same counts."""

    def raised(data: dict[str, Any]) -> None:
        e = data["evaluations"][0]
        score(data, (e["correct"] + 1) / e["n"], dense=False)

    folder = board(raised)
    args = ["verify", str(folder), "--sample", "2", "--device", "cpu", "--out", str(tmp_path / "o")]
    got = CliRunner().invoke(command, [*args, "--json"])
    assert got.exit_code == 1
    said = json.loads(got.stdout)
    assert said["counts"] == {"same": 1, "agrees": 0, "differs": 1, "not checked": 0}
    (wrong,) = [c for c in said["cells"] if c["outcome"] == "differs"]
    assert wrong["text"].startswith("correct at 16, ")
    assert "with the same versions and threads" in wrong["text"]
    got = CliRunner().invoke(command, args)
    assert got.exit_code == 1
    lines = got.stdout.splitlines()
    assert lines[-1] == f"{folder}: 1 same, 0 agrees, 1 differs, 0 not checked"
    assert len(lines) == 3


def test_elsewhere_rounding_may_differ_but_no_more(genuine: dict[str, Any]) -> None:
    genuine = score(genuine, 0.5)
    again = score(copy.deepcopy(genuine), 0.55)
    again["provenance"]["torch"] = "9.9"
    outcome, text = compare(genuine, again)
    assert (outcome, text) == ("agrees", "within the 95% interval of the difference, on cpu")
    score(again, 0.7)
    assert compare(genuine, again) == ("differs", "accuracy at 16, accuracy at 24, on cpu")
    score(again, 0.5)
    again |= {"solved": True}
    again["config"]["device_type"] = "cuda"
    assert compare(genuine, again) == ("differs", "solved, on cuda, stored on cpu")
    for share in (0.0, 1.0):  # no interval of width 0
        few = score(copy.deepcopy(genuine), abs(share - 0.004))
        few["provenance"]["torch"] = "9.9"
        assert compare(score(genuine, share), few)[0] == "agrees"


def test_what_cannot_be_trained_here_is_said(board: Callable[..., Path], tmp_path: Path) -> None:
    folder = board(
        lambda data: data["config"].update(operator="theirs") or rehash(data),
        lambda data: data["config"].update(plugins={"p.py": "ab12"}) or rehash(data),
    )
    found = list(verify(folder, sample=2, device="cpu", out=tmp_path / "out"))
    assert [c.outcome for c in found] == ["not checked"] * 2
    texts = sorted(c.text for c in found)
    assert texts[0].startswith("its plugin is another here")
    assert texts[1].startswith("unknown operator 'theirs'")
    args = ["verify", str(folder), "--device", "cpu", "--out", str(tmp_path / "out")]
    with pytest.raises(ConfigError, match="could be checked here"):
        CliRunner().invoke(command, args, catch_exceptions=False)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"sources": {"helper": "ab12"}}, "its code is another here: helper"),
        ({"max_seqlen": 26}, "max_seqlen is 26: 0 in this version"),
    ],
)
def test_cells_of_other_code_are_not_compared(
    board: Callable[..., Path], tmp_path: Path, changes: dict[str, Any], text: str
) -> None:
    def other(data: dict[str, Any]) -> None:
        data["config"] |= changes
        rehash(data)

    found = list(verify(board(other, other), sample=1, device="cpu", out=tmp_path / "out"))
    assert [(c.outcome, c.text) for c in found] == [("not checked", text)]


def test_submitted_result_does_not_verify_itself(
    board: Callable[..., Path], measured: list[dict[str, Any]], tmp_path: Path
) -> None:
    folder = board()
    for data in measured:
        cell = tmp_path / "out" / data["cell_id"]
        cell.mkdir(parents=True)
        (cell / "result.json").write_text(json.dumps(data))
    found = list(verify(folder, sample=2, device="cpu", out=tmp_path / "out"))
    assert {c.outcome for c in found} == {"not checked"}
    assert "holds the stored result itself" in found[0].text


def test_board_without_a_trained_cell_is_refused(
    board: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = board()
    monkeypatch.setattr(module, "_COMPARED", ())
    with pytest.raises(ResultError, match="holds no trained cell"):
        list(verify(folder, sample=1, device="cpu", out=tmp_path))
