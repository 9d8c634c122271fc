from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mechbench.errors import ConfigError
from mechbench.plan.resolve import resolve
from mechbench.plan.suite_file import read_suite
from mechbench.sweep.execute import RayCluster, look, run_sweep
from mechbench.sweep.plan import stored_results
from mechbench.sweep.ray_cluster import files_of, put_files, run_elsewhere

PLUGIN = """
import os, pathlib, signal, torch, mechbench

@mechbench.register_operator("killed-once")
class KilledOnce(torch.nn.Module):
    def __init__(self, d_model: int, max_seqlen: int) -> None:
        super().__init__()
        self.mix = torch.nn.Linear(d_model, d_model)

    def forward(self, u):
        mark = pathlib.Path(__file__).with_name("killed")
        if self.training and u.device.type != "meta" and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.mix(u)
"""
SUITE = """title = "T"
tasks = ["recall"]
plugins = ["plugin.py"]
operators = ["killed-once", "attention"]
seeds = [0, 1]
[settings]
seqlen = 16
vocab_size = 8
d_model = 16
n_layers = 1
batch_size = 8
budget_sequences = 80
n_test = 16
n_validation = 16
validate_every = 5
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    path = tmp_path / "suite.toml"
    path.write_text(SUITE)
    return path


@pytest.mark.usefixtures("clean_registry")
@pytest.mark.filterwarnings("default")  # of Ray's own
def test_cluster_loses_nothing_when_a_worker_is_killed(
    suite: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A real local cluster of two workers, one of them killed in the middle of a cell."""
    pytest.importorskip("ray", reason="needs mechbench[ray]")
    read, out = read_suite(suite), tmp_path / "runs"
    outlook = look(read, out, device="cpu")
    plan, stopped = run_sweep(
        outlook, read, out, ["cpu", "cpu"], checkpoint_s=30, ray=RayCluster(None)
    )
    assert stopped is None
    assert (len(plan.done), len(plan.failed), len(plan.todo)) == (4, 0, 0)
    results = stored_results(outlook.cells, out)
    assert sorted(results) == sorted(p.name for p in out.iterdir())
    assert [d["status"] for d in results.values()] == ["ok"] * 4
    lines = capfd.readouterr().err.splitlines()
    assert sum("worker lost" in line for line in lines) == 1
    assert sum("accuracy" in line for line in lines) == 4  # each recorded once
    for name in ("config.json", "metrics.csv", "result.json"):
        assert len(list(out.rglob(name))) == 4


@pytest.mark.usefixtures("clean_registry")
def test_without_ray_the_error_says_what_to_install(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    read = read_suite(suite)
    outlook = look(read, tmp_path / "runs", device="cpu")
    with pytest.raises(ConfigError, match=r"pip install 'mechbench\[ray\]'"):
        run_sweep(outlook, read, tmp_path / "runs", ["cpu"], checkpoint_s=1, ray=RayCluster(None))


def test_a_cell_goes_on_elsewhere_from_the_files_that_it_has_here(tmp_path: Path) -> None:
    call = {
        "operator": "attention", "task": "recall", "seqlen": 16, "vocab_size": 8, "d_model": 16,
        "n_layers": 1, "batch_size": 8, "n_test": 16, "n_validation": 16, "validate_every": 5,
    }  # fmt: skip

    def order(steps: int) -> dict[str, Any]:
        asked = {**call, "budget_tokens": steps * 8 * 18}
        cell_id = resolve(**asked, device="cpu")[0].cell_id
        return {
            "call": asked, "cell_id": cell_id, "device": "cpu", "out": "", "plugins": [],
            "checkpoint_s": 30.0, "log": "none",
        }  # fmt: skip

    report, files = run_elsewhere(order(10), {})
    assert (report["result"]["steps"], len(files)) == (10, 4)
    folder = tmp_path / "cell"
    put_files(folder, files)
    assert files_of(folder) == files
    further, after = run_elsewhere(order(20), files_of(folder))
    alone, whole = run_elsewhere(order(20), {})
    assert further["result"]["evaluations"] == alone["result"]["evaluations"]
    assert further["result"]["seconds"]["train"] > report["result"]["seconds"]["train"]
    first, second = (
        b.decode().splitlines()[1:3] for b in (files["metrics.csv"], after["metrics.csv"])
    )
    assert first == second  # with the times of their first run
    assert whole["metrics.csv"].decode().splitlines()[1] != first[0]
