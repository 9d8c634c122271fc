from __future__ import annotations

import copy
import json
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mechbench.leaderboard.submit as module
from leaderboard.conftest import SUITE
from leaderboard.forgeries import rehash, retold, score
from mechbench.errors import ConfigError
from mechbench.leaderboard.submit import submit
from mechbench.leaderboard.truth import Truths
from mechbench.record.config import Config
from mechbench.report.results_csv import FILE, read_rows, write_rows
from mechbench.report.rows import rows_of

TRUTHS = Truths()
Make = Callable[..., dict[str, Any]]
Save = Callable[[dict[str, Any]], Path]


@pytest.fixture
def at(genuine: dict[str, Any]) -> Make:
    """Return a result that could be a cell's, with an accuracy and times of its own."""

    def result(
        operator: str = "attention", share: float = 0.5, seed: int = 0, **settings: Any
    ) -> dict[str, Any]:
        data = copy.deepcopy(genuine)
        data["evaluations"] = data["evaluations"][:1]
        if operator != "attention":
            options = {"feature_map": "elu"} if operator == "theirs" else {}
            data["config"] |= {"operator": operator, "operator_options": options}
        data["config"] |= {"seed": seed, "eval_seqlens": [16], **settings}
        data["seconds"]["train"] += seed + 1e-3 * len(operator)
        rehash(data)
        given = copy.deepcopy(TRUTHS.at(Config.from_dict(data["config"]), 16))
        data["evaluations"][0] |= {
            name: getattr(given, name) for name in ("dense_n", "shortcuts", "required_context")
        }
        return score(data, share)

    return result


def statuses(folder: Path) -> Counter[str]:
    return Counter(row.status for row in read_rows(folder / "results.csv"))


def test_results_are_added_and_what_is_missing_is_listed(
    at: Make, save: Save, suite: Path, tmp_path: Path
) -> None:
    board = tmp_path / "boards" / "mine"
    save(at())
    save(at(n_validation=64))  # of another suite
    done = submit([tmp_path / "runs"], board, suite)
    assert (done.added, done.known, done.elsewhere, done.refused, done.not_run) == (1, 0, 1, (), 3)
    assert statuses(board) == {"ok": 1, "not-run": 3}
    assert (board / "suite.toml").read_text() == SUITE
    # Later the copy of the suite will do, and a result takes the place of what was not run.
    save(at(share=0.02, seed=1))  # far below chance
    done = submit([tmp_path / "runs"], board)
    assert (done.added, done.known, done.not_run) == (1, 1, 2)
    assert statuses(board) == {"ok": 2, "not-run": 2}
    before = (board / "results.csv").read_bytes()
    assert submit([tmp_path / "runs"], board).added == 0
    assert (board / "results.csv").read_bytes() == before


def test_foreign_operator_and_further_lengths_are_welcome(
    at: Make, save: Save, genuine: dict[str, Any], suite: Path, tmp_path: Path
) -> None:
    save(at("theirs"))
    save(genuine)  # scored at 24 tokens, too
    done = submit([tmp_path / "runs"], tmp_path / "b", suite)
    assert (done.added, done.not_run) == (2, 3)  # the cell at 16 tokens alone was run with 24


def test_operators_that_the_suite_does_not_plan_can_be_left_out(
    at: Make, save: Save, suite: Path, tmp_path: Path
) -> None:
    save(at("theirs"))
    save(at())
    done = submit([tmp_path / "runs"], tmp_path / "b", suite, planned=True)
    assert (done.added, done.elsewhere, done.not_run) == (1, 1, 3)


def test_one_refused_result_keeps_the_others_out_unless_asked(
    at: Make, save: Save, suite: Path, tmp_path: Path
) -> None:
    save(at())
    path = save(at(seed=1) | {"chance": 0.9})
    broken = save(at(seed=2))
    broken.write_text("{")
    done = submit([tmp_path / "runs"], tmp_path / "b", suite)
    assert done.added == 0
    assert len(done.refused) == 2
    assert f"{path}: chance is 0.9: the task's is 0.25" in done.refused
    assert not (tmp_path / "b").exists()
    done = submit([tmp_path / "runs"], tmp_path / "b", suite, without_refused=True)
    assert (done.added, done.not_run) == (1, 3)


def test_copies_of_a_result_are_refused(at: Make, save: Save, suite: Path, tmp_path: Path) -> None:
    first, second = at(share=0.0), at(share=0.0, seed=1)
    second["seconds"] = first["seconds"]
    submit([save(first)], tmp_path / "b", suite)
    save(second)
    done = submit([tmp_path / "runs"], tmp_path / "b", suite)
    assert (done.added, len(done.refused)) == (0, 1)
    assert f"cell {first['cell_id']} (seed 0): a copy" in done.refused[0]


def test_baselines_are_the_tasks_own(at: Make, save: Save, suite: Path, tmp_path: Path) -> None:
    """Those of an older version are neither refused nor believed."""
    data = at()
    own = copy.deepcopy(data["evaluations"][0])
    del data["config"]["sources"], data["config"]["max_seqlen"]
    data["evaluations"][0]["shortcuts"] = {"nothing": 0.0}
    data["evaluations"][0]["required_context"]["16"] = 0.0
    submit([save(data)], tmp_path / "b", suite)
    (row,) = [r for r in read_rows(tmp_path / "b" / "results.csv") if r.status == "ok"]
    assert row.evaluation == own


def test_newer_result_of_a_cell_counts(at: Make, save: Save, suite: Path, tmp_path: Path) -> None:
    first, newer, older = at(), at(share=0.25), at(share=0.75)
    for data, month in ((first, 3), (newer, 4), (older, 2)):
        data["provenance"]["date"] = f"2026-0{month}-01T00:00:00Z"
    submit([save(first)], tmp_path / "b", suite)
    assert submit([save(newer)], tmp_path / "b", suite).refused == ()
    assert submit([save(older)], tmp_path / "b", suite).refused == ()
    assert [r.accuracy for r in read_rows(tmp_path / "b" / "results.csv") if r.accuracy] == [0.25]


def test_suite_must_be_named_the_first_time(at: Make, save: Save, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no suite\.toml: name the suite with --suite"):
        submit([save(at())], tmp_path / "b")


def _slowly(path: Path, rows: Any) -> None:
    time.sleep(0.1)
    write_rows(path, rows)


def _one(start: Any, *arguments: Path) -> None:
    start.wait()
    file, board, suite = arguments
    assert submit([file], board, suite).added == 1


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_four_submissions_at_once_lose_nothing(
    at: Make, save: Save, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits between reading and writing, so that without a lock three would be lost."""
    monkeypatch.setattr(module, "write_rows", _slowly)
    # Tensors are not for forked processes.
    monkeypatch.setattr(Truths, "faults", lambda self, data: [])
    monkeypatch.setattr(Truths, "corrected", lambda self, data: data)
    context = multiprocessing.get_context("fork")
    start = context.Barrier(4)
    started = [
        context.Process(target=_one, args=(start, save(at(seed=seed)), tmp_path / "b", suite))
        for seed in range(4)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
    assert [process.exitcode for process in started] == [0] * 4
    assert statuses(tmp_path / "b")["ok"] == 4


def test_lock_follows_no_symbolic_link(at: Make, save: Save, suite: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / ".b.lock").symlink_to(precious)
    with pytest.raises(ConfigError, match="cannot lock"):
        submit([save(at())], tmp_path / "b", suite)
    assert precious.read_text() == "mine"


def test_plugins_of_a_suite_are_found_from_its_copy(
    at: Make, save: Save, suite: Path, tmp_path: Path, clean_registry: None
) -> None:
    """And what is built from the results needs none of them."""
    plugin = tmp_path / "theirs.py"
    plugin.write_text(
        "import mechbench\nfrom torch import nn\n"
        "@mechbench.register_operator('theirs')\nclass Theirs(nn.Module):\n"
        "    def __init__(self, d_model: int, max_seqlen: int) -> None:\n"
        "        super().__init__()\n"
    )
    text = SUITE.replace('"linear-attention"', '"theirs"')
    suite.write_text('plugins = [\n  "theirs.py",  # ours\n]\n' + text)
    board = tmp_path / "boards" / "mine"
    assert submit([save(at())], board, suite).refused == ()
    assert 'plugins = ["../../theirs.py"]' in (board / "suite.toml").read_text()
    assert submit([tmp_path / "runs"], board).known == 1
    plugin.unlink()
    from mechbench.leaderboard.board import read_board

    assert len(read_board(board).rows) == 4


def test_rows_hold_json(at: Make, save: Save, suite: Path, tmp_path: Path) -> None:
    """A reason with commas, quotes and line breaks comes back on one line."""
    data = at()
    data |= {"status": "error", "stop": "error", "reason": '=1+1, "a"\n<b>', "evaluations": []}
    submit([save(json.loads(json.dumps(retold(data))))], tmp_path / "b", suite)
    (row,) = [r for r in read_rows(tmp_path / "b" / "results.csv") if r.status == "error"]
    assert row.data["reason"] == '=1+1, "a" <b>'


def test_a_board_of_an_older_protocol_takes_no_result(
    at: Make, save: Save, suite: Path, tmp_path: Path
) -> None:
    board = tmp_path / "board"
    board.mkdir()
    old = at()
    old["config"] |= {"protocol": 2, "schedule": "cosine"}
    write_rows(board / "results.csv", rows_of(rehash(old)))
    before = (board / "results.csv").read_bytes()
    save(at())
    with pytest.raises(ConfigError, match="holds results of protocol 2: those of protocol 3 are n"):
        submit([tmp_path / "runs"], board, suite)
    assert (board / "results.csv").read_bytes() == before


def test_a_cell_that_is_carried_on_takes_its_own_place(
    at: Make, save: Save, suite: Path, tmp_path: Path
) -> None:
    board = tmp_path / "board"
    first = at()
    save(first)
    assert submit([tmp_path / "runs"], board, suite).not_run == 3
    suite.write_text(suite.read_text().replace("budget_tokens = 5760", "budget_tokens = 11520"))
    done = submit([tmp_path / "runs"], board, suite)
    assert (done.elsewhere, done.not_run) == (1, 3)  # it stands there with its smaller budget
    further = at(share=0.75, budget_tokens=11520)
    assert further["cell_id"] == first["cell_id"]
    further |= {"steps": 2 * first["steps"], "train_tokens": 2 * first["train_tokens"]}
    save(retold(further))
    done = submit([tmp_path / "runs"], board, suite)
    assert (done.refused, done.not_run) == ((), 3)
    budgets = {row.data["cell_id"]: row.config.budget_tokens for row in read_rows(board / FILE)}
    assert budgets[first["cell_id"]] == 11520
    assert len(budgets) == 4
    # Where the suite lets cells go on, the larger budget is one of its own.
    suite.write_text("carry_on = 3\n" + suite.read_text().replace("= 11520", "= 5760"))
    done = submit([tmp_path / "runs"], tmp_path / "other", suite)
    assert (done.refused, done.elsewhere, done.not_run) == ((), 0, 3)
