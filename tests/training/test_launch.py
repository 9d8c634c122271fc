"""The launcher, with a stand-in for Python that imports nothing; tests/cli has the real thing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from mechbench.errors import ResultError
from mechbench.training import launch as module
from mechbench.training.launch import launch

_LIMIT_S = 60.0
_STAND_IN = """\
#!{python} -S
import os, pathlib, signal, sys, time
here = pathlib.Path(__file__).parent
rank = int(os.environ["RANK"])
def wait_for(name):
    deadline = time.monotonic() + {limit}
    while not (here / name).exists():
        if time.monotonic() > deadline:
            sys.exit(99)
        time.sleep(0.01)
"""


def stand_in(folder: Path, body: str) -> Path:
    path = folder / "python"
    head = _STAND_IN.format(python=sys.executable, limit=_LIMIT_S)
    path.write_text(head + textwrap.dedent(body), encoding="utf-8")
    path.chmod(0o755)
    return path


def test_each_process_knows_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = stand_in(
        tmp_path,
        """
        told = [os.environ[n] for n in ("WORLD_SIZE", "LOCAL_RANK", "MECHBENCH_MEETING")]
        (here / f"{rank}.txt").write_text(" ".join([*told, *sys.argv[1:]]))
        """,
    )
    monkeypatch.setattr(sys, "executable", str(python))
    assert launch(3, ["run", "--quiet"]) == 0
    told = [(tmp_path / f"{rank}.txt").read_text().split() for rank in range(3)]
    assert [line[:2] for line in told] == [["3", str(rank)] for rank in range(3)]
    assert {tuple(line[3:]) for line in told} == {("-m", "mechbench", "run", "--quiet")}
    (meeting,) = {line[2] for line in told}
    assert meeting.startswith("file:///")
    assert not Path(meeting.removeprefix("file://")).parent.exists()


def test_failed_process_is_told_of_and_the_leader_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = stand_in(
        tmp_path,
        """
        if rank:
            sys.exit("a first line\\nthe reason")
        (here / "leader.txt").write_text(str(os.getpid()))
        wait_for("never")
        """,
    )
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(module, "_GRACE_S", 1.0)
    with pytest.raises(ResultError, match="process of the data-parallel run failed: the reason"):
        launch(2, [])
    leader = int((tmp_path / "leader.txt").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(leader, 0)


def test_leader_tells_of_what_stops_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = stand_in(
        tmp_path,
        """
        if rank == 0:
            wait_for("failed")
            sys.exit(7)
        (here / "failed").touch()
        sys.exit(2)
        """,
    )
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(module, "_GRACE_S", _LIMIT_S)
    assert launch(2, []) == 7


def test_talkative_process_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = stand_in(
        tmp_path,
        """
        if rank == 0:
            wait_for("said")
        else:
            sys.stderr.write("x" * 2**20)
            (here / "said").touch()
        """,
    )
    monkeypatch.setattr(sys, "executable", str(python))
    assert launch(2, []) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_to_the_launcher_reaches_each_once(tmp_path: Path, number: signal.Signals) -> None:
    python = stand_in(
        tmp_path,
        """
        received = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: received.append(number))
        (here / f"ready-{rank}").touch()
        while not received:
            time.sleep(0.01)
        (here / f"received-{rank}").touch()
        wait_for(f"received-{1 - rank}")
        (here / f"{rank}.txt").write_text(repr(list(map(int, received))))
        sys.exit(128 + received[0])
        """,
    )
    program = (
        "import sys; from mechbench.training.launch import launch; "
        f"sys.executable = {str(python)!r}; "
        "sys.exit(launch(2, []))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", program], env=environment) as process:
        deadline = time.monotonic() + _LIMIT_S
        while len(list(tmp_path.glob("ready-*"))) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(_LIMIT_S) == 128 + number
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)] == [f"[{int(number)}]"] * 2
