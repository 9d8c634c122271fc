from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mechbench.sweep import template

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="templates are for Linux")
LOADED = """
import os, sys, torch
from mechbench.sweep.template import load
load()
assert not torch.cuda.is_initialized()
assert len(os.listdir("/proc/self/task")) == 1, "threads"
assert "torch._dynamo" not in sys.modules
before = set(sys.modules)
from mechbench.plan.resolve import resolve
resolve("attention", "recall", device="cpu")
print(*sorted(n for n in set(sys.modules) - before if "mechbench" not in n))
"""


def test_what_is_loaded_suffices_and_leaves_threads_and_gpus_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as the template is started
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True
    )
    assert len(done.stdout.split()) < 20


THREADS = """
import os, socket, sys
from mechbench.sweep import template, worker
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
pipes = [os.pipe() for _ in range(3)]
given = [pipes[0][0], pipes[1][1], pipes[2][1]]
socket.send_fds(ours, [b"2"], given)
for pipe in given:
    os.close(pipe)
def work():
    import torch
    assert os.getsid(0) == os.getpid()
    os.write(1, f"{os.environ['OMP_NUM_THREADS']} {torch.get_num_threads()} ".encode())
    os.write(1, os.read(0, 100))
    sys.exit(5)
worker.main = work
if os.fork() == 0:
    ours.close()
    for pipe in (pipes[0][1], pipes[1][0], pipes[2][0]):
        os.close(pipe)
    template.main(theirs.detach())
os.write(pipes[0][1], b"order")
os.close(pipes[0][1])
told = os.fdopen(pipes[2][0])
pid = int(told.readline())
print(os.fdopen(pipes[1][0]).read(), int(told.readline()))
theirs.close()
ours.close()
assert os.wait()[1] == 0
"""


def test_a_copy_has_its_pipes_threads_and_session_and_its_end_is_told() -> None:
    done = subprocess.run(
        [sys.executable, "-c", THREADS], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["2", "2", "order", "5"]


def test_what_not_every_worker_needs_may_be_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "_LATE", ())
    monkeypatch.setattr(template, "_with_triton", lambda: True)
    monkeypatch.setitem(sys.modules, "triton", None)
    template.load()


def test_kernels_are_modules_and_only_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.version.cuda", None)
    assert template.kernels() == []
    monkeypatch.setattr("torch.version.cuda", "13.0")
    monkeypatch.setattr("mechbench.ops.triton.has_triton", lambda: True)
    root = Path(template.__file__).parents[2]
    found = template.kernels()
    assert "mechbench.ops.add_norm.kernels" in found
    assert "mechbench.ops.fft_conv.kernels" in found
    for name in found:
        path = root / name.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").is_file()
