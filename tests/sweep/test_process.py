from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mechbench.sweep import process
from mechbench.sweep.process import Process, Started, Template, start, template

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="templates are for Linux")


def rest(worker: Process) -> tuple[list[dict[str, Any]], int]:
    """Give no more orders; return what the worker still reports, and how it ends."""
    worker.orders.close()
    return [json.loads(line) for line in worker.reports()], worker.ended()


def test_a_worker_that_is_started_is_ready_and_ends_with_its_orders() -> None:
    worker = Started(1)
    lines = worker.reports()
    assert json.loads(next(lines)) == {"event": "ready"}
    worker.orders.close()
    assert list(lines) == []
    assert worker.ended() == 0


@on_linux
def test_copies_are_ready_and_tell_how_they_ended() -> None:
    with template() as ready:
        assert ready is not None
        workers = [start(ready, 1) for _ in range(3)]
        lines = [worker.reports() for worker in workers]
        assert [json.loads(next(one)) for one in lines] == [{"event": "ready"}] * 3
        workers[0].orders.close()
        workers[1].send_signal(signal.SIGKILL)
        workers[2].send_signal(signal.SIGTERM)
        assert [list(one) for one in lines] == [[], [], []]
        assert [worker.ended() for worker in workers] == [0, -signal.SIGKILL, -signal.SIGTERM]
        workers[1].send_signal(signal.SIGKILL)  # to nobody
        for worker in workers[1:]:
            worker.orders.close()
        again = start(ready, 1)
        assert json.loads(next(again.reports())) == {"event": "ready"}
        again.orders.close()
        assert again.ended() == 0


@on_linux
def test_a_copy_outlives_its_template() -> None:
    with template() as ready:
        worker = start(ready, 1)
        lines = worker.reports()
        next(lines)
    worker.orders.close()
    assert list(lines) == []
    assert worker.ended() == -signal.SIGKILL  # the template's: nobody knows its own


@on_linux
def test_a_signal_to_a_copy_that_has_not_begun_ends_the_template() -> None:
    with template() as ready:
        assert ready is not None
        worker = start(ready, 1)
        worker.send_signal(signal.SIGTERM)
        assert rest(worker) == ([], -signal.SIGKILL)
        other = start(ready, 1)  # there is nothing to copy any more
        assert isinstance(other, Started)
        assert rest(other)[1] == 0


@on_linux
def test_a_template_that_cannot_load_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "_TEMPLATE", "raise SystemExit(3)  # {link}")
    with template() as ready:
        assert ready is not None
        assert ready.ended() == 3
        other = start(ready, 1)
        assert isinstance(other, Started)
        assert rest(other)[1] == 0
    monkeypatch.setattr(process, "_TEMPLATE", "import time; time.sleep(0.5); exit(3)  # {link}")
    with template() as ready:
        assert rest(start(ready, 1)) == ([], 3)


@on_linux
def test_a_template_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = "from mechbench.sweep.process import Template, start\nt = Template(); w = start(t, 1)\n"
    code += "next(w.reports()); print(t._process.pid, w._pid, flush=True); import os; os._exit(0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for pid in map(int, done.stdout.split()):
        path = Path(f"/proc/{pid}/cmdline")
        for _ in range(500):
            if not path.exists() or not path.read_bytes():
                break
            time.sleep(0.02)
        else:
            pytest.fail(f"process {pid} goes on")


def test_elsewhere_every_worker_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with template() as ready:
        assert ready is None


@on_linux
def test_the_environment_decides_about_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(process, "Copied", lambda owner, link, threads: asked.append(threads))
    ready = Template.__new__(Template)
    ready._link = None  # type: ignore[assignment]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    ready.copy(5)
    monkeypatch.delenv("OMP_NUM_THREADS")
    ready.copy(5)
    assert asked == [0, 5]
