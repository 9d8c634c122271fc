from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import mechbench
from mechbench.catalogue.registry import register_filter, register_operator
from mechbench.errors import ConfigError
from mechbench.filters.explicit import ExplicitFilter
from mechbench.plan.suite_file import read_suite
from mechbench.record.results import read_result
from mechbench.sweep.execute import look, run_sweep, worker_devices

KILLS = int(os.environ.get("MECHBENCH_TEST_KILLS", "1"))  # 10 takes minutes
SUITE = """title = "T"
tasks = ["recall"]
operators = ["hyena", "attention"]
lrs = [1e-3, 1e-2]
seeds = [0, 1]
[settings]
seqlen = 16
vocab_size = 8
d_model = 16
n_layers = 1
batch_size = 8
budget_sequences = 240
n_test = 64
n_validation = 64
validate_every = 10
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "suite.toml"
    path.write_text(SUITE)
    return path


def test_outlook_counts_and_estimates(path: Path, tmp_path: Path) -> None:
    text = look(read_suite(path), tmp_path / "runs", device="cpu").text("suite.toml", 2)
    assert text.splitlines()[:5] == [
        "suite.toml: 8 cells",
        "  done          0",
        "  failed        0",
        "  to do         4",
        "  waiting       4  (for the choice of a learning rate)",
    ]
    assert "with 2 workers (0 of 8 cells by measured speeds" in text


def test_outlook_tells_the_stages_of_a_search_and_their_cost(path: Path, tmp_path: Path) -> None:
    path.write_text(path.read_text().replace("[1e-3, 1e-2]", "'grid'"))
    text = look(read_suite(path), tmp_path / "runs", device="cpu").text("suite.toml", 1)
    lines = text.splitlines()
    assert lines[3:5] == [
        "  to do        14", "  waiting       4  (for the choice of a learning rate)",
    ]  # fmt: skip
    head = "learning rates: 7 for each of 2 points, 0.0005 to 0.032, tried with a seed that is not"
    assert lines[5].startswith(head)
    assert [line.split(" tokens")[0] for line in lines[6:11]] == [
        "  to 1/4 of the budget 14 cells, 15.1 K",
        "  to 1/2 of the budget 8 to 14 cells, 8.64 K to 15.1 K",
        "  to the budget        4 to 14 cells, 8.64 K to 30.2 K",
        "  other such seeds     0 to 12 cells, 0 to 51.8 K",
        "  reported seeds       4 cells, 17.3 K",
    ]


def test_operator_of_a_script_is_refused_before_workers_start(
    path: Path, tmp_path: Path, clean_registry: None
) -> None:
    @register_operator("of-a-script")
    class Mine(torch.nn.Linear):
        def __init__(self, d_model: int, max_seqlen: int) -> None:
            super().__init__(d_model, d_model)

    path.write_text(path.read_text().replace('"hyena"', '"of-a-script"'))
    suite = read_suite(path)
    outlook = look(suite, tmp_path / "runs", device="cpu")
    with pytest.raises(ConfigError, match=r"'of-a-script' is registered by module .*plugin files"):
        run_sweep(outlook, suite, tmp_path / "runs", ["cpu"], checkpoint_s=30)
    assert not (tmp_path / "runs").exists()


def test_filter_of_a_script_is_refused_too(
    path: Path, tmp_path: Path, clean_registry: None
) -> None:
    @register_filter("of-a-script")
    class Mine(ExplicitFilter):
        pass

    hyena = '{ name = "hyena", options = { filter = "of-a-script" } }'
    path.write_text(path.read_text().replace('"hyena"', hyena))
    suite = read_suite(path)
    outlook = look(suite, tmp_path / "runs", device="cpu")
    with pytest.raises(ConfigError, match=r"filter 'of-a-script' is registered by module "):
        run_sweep(outlook, suite, tmp_path / "runs", ["cpu"], checkpoint_s=30)


def test_workers_share_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert worker_devices("cpu", None, 1) == ["cpu"]
    assert worker_devices("cpu", 3, 1) == ["cpu"] * 3
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert worker_devices("auto", None, 2) == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert worker_devices("cuda:1", None, 3) == ["cuda:1"] * 3
    assert worker_devices("auto", 1, 1) == ["cuda:0"]
    with pytest.raises(ConfigError, match="5 jobs on 2 device"):
        worker_devices("auto", 5, 2)


def outcomes(out: Path) -> dict[str, Any]:
    """Return what must not depend on interruptions, of every cell."""
    varying = {"seconds", "tokens_per_s", "peak_memory_mib", "provenance", "fft_conv_backend",
        "kernels"}  # fmt: skip
    found = {}
    for file in sorted(out.rglob("result.json")):
        data = {k: v for k, v in read_result(file).data.items() if k not in varying}
        with file.with_name("metrics.csv").open(newline="") as metrics:
            data["rows"] = [
                {k: v for k, v in row.items() if k not in ("tokens_per_s", "train_s")}
                for row in csv.DictReader(metrics)
            ]
        found[file.parent.name] = data
    return found


def undisturbed(path: Path, out: Path) -> None:
    """Run every cell in this process, one after another, as the sweep decides."""
    while todo := look(read_suite(path), out, device="cpu").plan.todo:
        for cell in todo:
            mechbench.run(**cell.call, device="cpu", out=out, quiet=True)


def start(path: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable, "-m", "mechbench", "sweep", str(path), "--out", str(out),
            "--device", "cpu", "--jobs", "1", "--checkpoint-every", "0",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def test_a_suite_whose_budget_grew_carries_its_cells_on(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "runs"
    monkeypatch.setattr("mechbench.training.loop.SOLVED", 0.5)  # that one rate reaches
    undisturbed(path, out)
    before = outcomes(out)
    path.write_text(path.read_text().replace("sequences = 240", "sequences = 480"))
    undisturbed(path, tmp_path / "calm")
    suite = read_suite(path)
    outlook = look(suite, out, device="cpu")
    assert not outlook.plan.waiting or len(outlook.plan.todo) < 6
    undisturbed(path, out)
    run_sweep(look(suite, out, device="cpu"), suite, out, ["cpu"], checkpoint_s=30, quiet=True)
    after = outcomes(out)
    needed = {cell.cell_id for cell in look(suite, out, device="cpu").plan.done}
    expected = outcomes(tmp_path / "calm")
    assert needed == expected.keys()
    assert {cell_id: after[cell_id] for cell_id in needed} == expected
    assert {data["config"]["budget_tokens"] for data in expected.values()} == {480 * 18}
    assert {data["config"]["budget_tokens"] for data in before.values()} == {240 * 18}
    assert look(read_suite(path), out, device="cpu").plan.todo == []


def test_what_is_not_flat_goes_on_in_one_sweep(path: Path, tmp_path: Path) -> None:
    text = path.read_text().replace("[1e-3, 1e-2]", "[1e-3]").replace("= 240", "= 80")
    path.write_text("carry_on = 3\n" + text)
    suite, out = read_suite(path), tmp_path / "runs"
    outlook = look(suite, out, device="cpu")
    assert "those not flat then go on, up to 3 times that" in outlook.text("mine", 1)
    plan, _ = run_sweep(outlook, suite, out, ["cpu"], checkpoint_s=30, quiet=True)
    assert (len(plan.done), plan.todo) == (4, [])
    budgets = {data["config"]["budget_tokens"] for data in outcomes(out).values()}
    assert budgets == {240 * 18}  # nobody can say of so few tokens that accuracy was flat
    undisturbed(path, tmp_path / "calm")
    assert outcomes(out) == outcomes(tmp_path / "calm")


def newest(out: Path) -> float:
    times = [
        p.stat().st_mtime for p in out.rglob("*") if p.name in ("checkpoint.pt", "result.json")
    ]
    return max(times, default=0.0)


def test_killed_and_restarted_sweep_ends_like_an_undisturbed_one(
    path: Path, tmp_path: Path
) -> None:
    text = path.read_text().replace('"hyena", ', "")
    path.write_text(text.replace("[1e-3, 1e-2]", "[1e-4, 1e-3, 1e-2]"))  # a rung at half way
    undisturbed(path, tmp_path / "calm")
    out, chance = tmp_path / "runs", random.Random(0)
    for _ in range(KILLS):
        before, sweep = newest(out), start(path, out)
        while sweep.poll() is None and newest(out) == before:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.4))
        sweep.send_signal(signal.SIGKILL)
        sweep.communicate()
    done = start(path, out)
    stdout, stderr = done.communicate(timeout=600)
    assert done.returncode == 0, stderr
    assert "5 of 5 cells done, 0 failed" in stdout
    assert outcomes(out) == outcomes(tmp_path / "calm")
    assert len(outcomes(out)) == 5
