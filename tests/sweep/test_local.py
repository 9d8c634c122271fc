from __future__ import annotations

from pathlib import Path

import pytest

from mechbench.plan.suite_file import read_suite
from mechbench.sweep.execute import look, run_sweep
from mechbench.sweep.plan import stored_results
from mechbench.sweep.process import template

PLUGIN = """
import os, pathlib, signal, torch, mechbench

class Base(torch.nn.Module):
    def __init__(self, d_model: int, max_seqlen: int) -> None:
        super().__init__()
        self.mix = torch.nn.Linear(d_model, d_model)

    def forward(self, u):
        if self.training and u.device.type != "meta":
            self.act()
        return self.mix(u)

    def act(self):
        pass

@mechbench.register_operator("dies")
class Dies(Base):
    def act(self):
        os.kill(os.getpid(), signal.SIGKILL)

@mechbench.register_operator("dies-once")
class DiesOnce(Base):
    def act(self):
        mark = pathlib.Path(__file__).with_name("died")
        if not mark.exists():
            mark.touch()
            os._exit(3)

if not pathlib.Path(__file__).with_name("planned").exists():
    @mechbench.register_operator("shy")
    class Shy(Base):
        pass

@mechbench.register_operator("too-big")
class TooBig(Base):
    def act(self):
        print("noise on standard output")
        raise torch.OutOfMemoryError("CUDA out of memory")
"""
SUITE = """title = "T"
tasks = ["recall"]
plugins = ["plugin.py"]
operators = ["shy", "dies", "dies-once", "too-big", "attention"]
settings = { seqlen = 16, vocab_size = 8, d_model = 16, n_layers = 1, batch_size = 8, budget_sequences = 80, n_test = 16, n_validation = 16, validate_every = 5 }
"""  # noqa: E501


@pytest.mark.usefixtures("clean_registry")
def test_dead_workers_and_failures_do_not_stop_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL, an exit, no memory, a name that workers do not know, and one sound cell."""
    (tmp_path / "plugin.py").write_text(PLUGIN)
    (tmp_path / "suite.toml").write_text(SUITE)
    suite, out = read_suite(tmp_path / "suite.toml"), tmp_path / "runs"
    outlook = look(suite, out, device="cpu")
    (tmp_path / "planned").touch()
    with template() as ready:
        devices = ["cpu", "cpu"]
        plan, stopped = run_sweep(outlook, suite, out, devices, checkpoint_s=30, template=ready)
    assert stopped is None
    ended = {
        data["config"]["operator"]: (data["status"], data["reason"])
        for data in stored_results(outlook.cells, out).values()
    }
    status, reason = ended.pop("shy")
    assert status == "error"
    assert str(reason).startswith("unknown operator 'shy'")
    assert ended == {
        "dies": ("error", "the worker process died (signal 9), 2 times of 2"),
        "dies-once": ("ok", None),
        "too-big": ("out-of-memory", "CUDA out of memory"),
        "attention": ("ok", None),
    }
    assert (len(plan.done), len(plan.failed), len(plan.todo)) == (2, 3, 0)
    assert capsys.readouterr().err.count("worker lost") == 3
    assert look(suite, out, device="cpu").plan.todo == []
    assert len(look(suite, out, device="cpu", retry_failed=True).plan.todo) == 3
