from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mechbench.errors import ConfigError, ResultError
from mechbench.record.config import Config
from mechbench.record.files import exclusive
from mechbench.record.results import write_json
from mechbench.training.cell import Interrupted
from training.conftest import (
    STEPS,
    B,
    L,
    Operator,
    Run,
    V,
    fall_short,
    outcome,
    rows,
    the_folder,
)

pytestmark = pytest.mark.usefixtures("clean_registry")


def test_configuration_stands_beside_the_result_and_names_the_folder(
    run: Run, tmp_path: Path
) -> None:
    result = run("attention")
    folder = the_folder(tmp_path)
    config = Config.from_dict(json.loads((folder / "config.json").read_text()))
    assert config.to_dict() == result.config
    assert config.cell_id == result.cell_id == folder.name


def test_same_call_gives_the_same_result_and_another_seed_another(run: Run) -> None:
    one, same, other = run("hyena"), run("hyena", "again"), run("hyena", seed=1)
    assert outcome(one) == outcome(same)
    assert rows(one.path.parent) != rows(other.path.parent)
    assert one.path != other.path


def test_finished_cell_is_read_and_not_run_again(mine: Operator, run: Run) -> None:
    first = run()
    before, passes = first.path.stat().st_mtime_ns, mine.passes
    assert run() == first
    assert (mine.passes, first.path.stat().st_mtime_ns) == (passes, before)


def test_fresh_run_starts_over(mine: Operator, run: Run) -> None:
    first = run()
    again = run(resume=False)
    assert mine.passes == 2 * STEPS
    assert outcome(again) == outcome(first)


def test_corrupt_result_is_set_aside_and_scored_again_from_the_checkpoint(
    mine: Operator, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run()
    expected, passes = outcome(first), mine.passes
    first.path.write_text('{"status": "o')
    assert outcome(run()) == expected
    assert mine.passes == passes  # no training
    assert "set aside as result.json.corrupt-1" in capsys.readouterr().err
    assert first.path.with_name("result.json.corrupt-1").read_text() == '{"status": "o'


def test_folder_in_use_is_left_alone(run: Run, tmp_path: Path) -> None:
    folder = run("attention").path.parent
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with exclusive(folder), pytest.raises(ResultError, match="is in use by process"):
        run("attention", resume=False)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_single_sequence_out_of_memory_is_a_result_that_is_tried_again(
    mine: Operator, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    mine.hook = fall_short
    result = run()
    text = "CUDA out of memory. Tried to allocate 2 GiB"
    assert (result.status, result.stop, result.reason) == ("out-of-memory", "out-of-memory", text)
    assert (result.evaluations, result.steps, result.causal) == ([], 0, True)
    assert result.parameters > 0
    assert "out of memory with a single sequence" in capsys.readouterr().err
    mine.hook = lambda step, u: None  # another machine
    again = run()
    assert (again.status, again.path) == ("ok", result.path)


def test_threads_are_no_part_of_the_cell(run: Run) -> None:
    before = torch.get_num_threads()
    plain = run("attention")
    try:
        torch.set_num_threads(before + 1)
        assert run("attention", "more").cell_id == plain.cell_id
    finally:
        torch.set_num_threads(before)


def test_error_of_the_user_stores_no_result(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        run("hyena", operator_options={"order": 1})
    assert not (tmp_path / "runs").exists()
    with pytest.raises(ConfigError, match="unknown operator"):
        run("hyna", "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_continues_to_the_same_result(
    mine: Operator, run: Run, tmp_path: Path, number: signal.Signals
) -> None:
    expected = outcome(run(folder="whole"))
    before = signal.getsignal(number)
    mine.once(13, lambda: os.kill(os.getpid(), number))
    with pytest.raises(Interrupted, match="interrupted at step 13; the same command") as got:
        run()
    assert got.value.signal_number == number
    assert signal.getsignal(number) == before
    folder = the_folder(tmp_path)
    assert not (folder / "result.json").exists()
    assert [row[0] for row in rows(folder)] == ["10"]
    mine.once(8, lambda: os.kill(os.getpid(), number))  # and again, at step 21
    with pytest.raises(Interrupted, match="at step 21"):
        run()
    mine.passes = 0
    assert outcome(run()) == expected
    assert mine.passes == STEPS - 21


PLUGIN = """
import os, signal
import torch
import mechbench

@mechbench.register_operator("fragile")
class Fragile(torch.nn.Module):
    passes = 0

    def __init__(self, d_model, max_seqlen):
        super().__init__()
        self.mix = torch.nn.Linear(d_model, d_model)

    def forward(self, u):
        if self.training and u.device.type != "meta":
            Fragile.passes += 1
            if str(Fragile.passes) == os.environ.get("DIE_AT"):
                os.kill(os.getpid(), signal.SIGKILL)
        return self.mix(u).cumsum(1) / u.shape[1]
"""


def test_killed_run_continues_to_the_same_result(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text(PLUGIN)
    expected = run("fragile", "whole", plugins=[str(plugin)])
    code = (
        "import json, sys, mechbench\n"
        "mechbench.run('fragile', 'recall', **json.loads(sys.argv[1]))\n"
    )
    settings = {
        "seqlen": L, "vocab_size": V, "d_model": 16, "n_layers": 1, "batch_size": B,
        "budget_tokens": STEPS * B * (L + 2), "n_test": 64, "n_validation": 64,
        "validate_every": 10, "device": "cpu", "checkpoint_s": 0, "plugins": [str(plugin)],
        "out": str(tmp_path / "runs"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(settings)],
        env={**os.environ, "DIE_AT": "30"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    folder = the_folder(tmp_path)
    assert (folder / "checkpoint.pt").exists()
    assert not (folder / "result.json").exists()
    again = run("fragile", plugins=[str(plugin)])
    assert outcome(again) == outcome(expected)
    assert list(again.config["plugins"]) == [str(plugin)]


@pytest.mark.parametrize("removed", [{"evaluations": []}, {"config": {}}])
def test_result_without_its_evaluations_or_configuration_is_not_believed(
    mine: Operator,
    run: Run,
    removed: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = run()
    expected, passes = outcome(first), mine.passes
    write_json(first.path, first.data | removed)
    assert outcome(run()) == expected
    assert mine.passes == passes  # scored again from the checkpoint
    assert "is damaged" in capsys.readouterr().err


def test_drawing_operator_continues_to_the_same_result_and_leaves_generators_alone(
    mine: Operator, run: Run
) -> None:
    mine.hook = lambda step, u: 1.0 + float(torch.rand(()))
    before = torch.get_rng_state()
    expected = outcome(run(folder="whole"))
    assert torch.equal(torch.get_rng_state(), before)

    def interrupt(step: int, u: Tensor) -> float:
        if step == 13:
            os.kill(os.getpid(), signal.SIGINT)
        return 1.0 + float(torch.rand(()))

    mine.hook, mine.passes = interrupt, 0
    with pytest.raises(Interrupted):
        run()
    assert outcome(run()) == expected
