from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from mechbench.plan.suite_file import read_suite
from mechbench.sweep.execute import look, run_sweep
from mechbench.sweep.lanes import Lanes
from mechbench.sweep.plan import stored_results
from mechbench.sweep.process import Template, template

PLUGIN = """
import os, pathlib, signal, torch, mechbench

class Base(torch.nn.Module):
    def __init__(self, d_model: int, max_seqlen: int) -> None:
        super().__init__()
        self.mix = torch.nn.Linear(d_model, d_model)
        self.calls = 0

    def forward(self, u):
        if self.training and torch.is_grad_enabled() and u.device.type != "meta":
            self.calls += 1
            if self.calls > 40:
                self.act()
        return self.mix(u)

    def act(self):
        pass

@mechbench.register_operator("dies")
class Dies(Base):
    def act(self):
        os.kill(os.getpid(), signal.SIGKILL)

@mechbench.register_operator("exits")
class Exits(Base):
    def act(self):
        os._exit(3)

@mechbench.register_operator("raises")
class Raises(Base):
    def act(self):
        raise ValueError("not this batch")

spoilt = False  # as a GPU after a fault

@mechbench.register_operator("spoils")
class Spoils(Base):
    def act(self):
        global spoilt
        from mechbench.training import lane
        spoilt, lane.broken = True, lambda device: True
        raise RuntimeError("illegal memory access")

@mechbench.register_operator("fragile")
class Fragile(Base):
    def forward(self, u):
        if spoilt:
            raise RuntimeError("not my fault")
        return super().forward(u)

@mechbench.register_operator("draws")
class Draws(Base):
    def forward(self, u):  # from the generator of the process, in scoring as well
        return torch.nn.functional.dropout(self.mix(u), 0.01 if self.training else 0.0)
"""
SUITE = """title = "T"
tasks = ["recall"]
plugins = ["plugin.py"]
operators = {operators}
seeds = {seeds}
settings = {{ seqlen = 16, vocab_size = 8, d_model = 16, n_layers = 1, batch_size = 8, budget_sequences = {sequences}, n_test = 16, n_validation = 16, validate_every = 50 }}
"""  # noqa: E501
CLOCKS = {"tokens_per_s", "train_s"}  # columns of metrics


def write(folder: Path, operators: Sequence[str], seeds: int = 1, sequences: int = 800) -> Path:
    (folder / "plugin.py").write_text(PLUGIN)
    path = folder / "suite.toml"
    names = "[" + ", ".join(f'"{name}"' for name in operators) + "]"
    text = SUITE.format(operators=names, seeds=list(range(seeds)), sequences=sequences)
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def ready() -> Iterator[Template | None]:
    """Return what workers are copied from, as the command line has them, for these tests."""
    with template() as ready:
        yield ready


def sweep(
    path: Path, out: Path, lanes: int, device: str = "cpu", ready: Template | None = None
) -> dict[str, dict[str, Any]]:
    """Run a suite; return its results by cell."""
    suite = read_suite(path)
    outlook = look(suite, out, device=device)
    _, stopped = run_sweep(
        outlook, suite, out, [device], checkpoint_s=30, template=ready, lanes=lanes
    )
    assert stopped is None
    return stored_results(outlook.cells, out)


def numbers(out: Path, results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what cells have found, without what a clock says."""
    found = {}
    for cell_id, data in results.items():
        with (out / cell_id / "metrics.csv").open() as file:
            rows = [{k: v for k, v in r.items() if k not in CLOCKS} for r in csv.DictReader(file)]
        kept = ("status", "stop", "evaluations", "steps", "kernels", "validation_accuracy")
        found[cell_id] = rows, {key: data[key] for key in kept}
    return found


@pytest.mark.usefixtures("clean_registry")
def test_cells_in_lanes_find_what_they_find_one_by_one(tmp_path: Path) -> None:
    path = write(tmp_path, ["attention", "draws"], seeds=2)
    one = sweep(path, tmp_path / "one", 1)
    three = sweep(path, tmp_path / "three", 3)
    assert len(one) == 4
    assert all(data["status"] == "ok" and data["steps"] == 100 for data in three.values())
    assert numbers(tmp_path / "one", one) == numbers(tmp_path / "three", three)
    assert all(data["peak_memory_mib"] is None for data in three.values())


@pytest.mark.usefixtures("clean_registry")
def test_what_kills_the_worker_is_found_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ready: Template | None
) -> None:
    path = write(tmp_path, ["dies", "exits", "raises", "attention", "hyena"])
    results = sweep(path, tmp_path / "runs", 3, ready=ready)
    ended = {d["config"]["operator"]: (d["status"], d["reason"]) for d in results.values()}
    status, reason = ended.pop("raises")
    assert status == "error"
    assert "raised ValueError" in str(reason)
    assert str(reason).endswith("not this batch")
    assert ended == {
        "dies": ("error", "the worker process died (signal 9), 2 times of 2"),
        "exits": ("error", "the worker process died (exit status 3), 2 times of 2"),
        "attention": ("ok", None),
        "hyena": ("ok", None),
    }
    assert "worker lost (signal 9) at dies" in capsys.readouterr().err


@pytest.mark.usefixtures("clean_registry")
@pytest.mark.parametrize("lanes", [1, 3])
def test_a_process_whose_gpu_a_cell_broke_runs_no_other(
    tmp_path: Path, lanes: int, ready: Template | None
) -> None:
    path = write(tmp_path, ["spoils", "fragile"], 2)
    results = sweep(path, tmp_path / "runs", lanes, ready=ready)
    ended = sorted((d["config"]["operator"], d["status"]) for d in results.values())
    assert ended == [("fragile", "ok")] * 2 + [("spoils", "error")] * 2
    reasons = [d["reason"] for d in results.values() if d["reason"]]
    assert all(reason.endswith("illegal memory access") for reason in reasons)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.usefixtures("clean_registry")
def test_a_sweep_in_lanes_is_interrupted_and_goes_on(
    tmp_path: Path, ready: Template | None
) -> None:
    path = write(tmp_path, ["attention", "draws"], sequences=1_600)
    out = tmp_path / "runs"
    command = [
        sys.executable, "-m", "mechbench", "sweep", str(path), "--out", str(out),
        "--device", "cpu", "--jobs", "1", "--lanes", "2",
    ]  # fmt: skip
    first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list(out.glob("*/config.json"))) < 2:
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.2)
    os.kill(first.pid, signal.SIGINT)
    _, said = first.communicate(timeout=60)
    assert first.returncode == 128 + signal.SIGINT
    assert "interrupted with 2 cells to go" in said
    assert len(list(out.glob("*/checkpoint.pt"))) == 2
    assert list(out.glob("*/result.json")) == []
    resumed = sweep(path, out, 2, ready=ready)
    whole = sweep(path, tmp_path / "whole", 1, ready=ready)
    assert numbers(out, resumed) == numbers(tmp_path / "whole", whole)


def test_lanes_end_when_stopped_without_an_order_left() -> None:
    lanes = Lanes(lambda report: None)
    lanes.stop(signal.SIGTERM)
    assert not any(t.name.startswith("lane ") for t in threading.enumerate())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.usefixtures("clean_registry")
def test_on_a_gpu_cells_in_streams_find_what_they_find_one_by_one(tmp_path: Path) -> None:
    """Steps are replayed as graphs side by side, one kind with numbers drawn in them."""
    path = write(tmp_path, ["attention", "conv", "draws"], seeds=2, sequences=8000)
    one = sweep(path, tmp_path / "one", 1, "cuda")
    three = sweep(path, tmp_path / "three", 3, "cuda")
    assert all(data["status"] == "ok" for data in three.values())
    assert numbers(tmp_path / "one", one) == numbers(tmp_path / "three", three)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.usefixtures("clean_registry")
@pytest.mark.parametrize("lanes", [1, 3])
def test_on_a_gpu_a_fault_of_one_cell_is_found(tmp_path: Path, lanes: int) -> None:
    """An index out of range breaks the GPU for the whole process."""
    path = write(tmp_path, ["faults", "attention", "hyena"], sequences=8000)
    with (tmp_path / "plugin.py").open("a") as file:
        file.write(
            '\n@mechbench.register_operator("faults")\nclass Faults(Base):\n'
            "    def forward(self, u):\n"
            "        if u.is_cuda and u.detach().sum().item() == 0.5:  # no capture allows it\n"
            "            return u\n"
            "        return super().forward(u)\n\n"
            "    def act(self):\n        if self.mix.weight.is_cuda:\n"
            "            self.mix.weight[torch.tensor([10**6], device='cuda')]\n"
        )
    results = sweep(path, tmp_path / "runs", lanes, "cuda")
    ended = {d["config"]["operator"]: d["status"] for d in results.values()}
    assert ended == {"faults": "error", "attention": "ok", "hyena": "ok"}
