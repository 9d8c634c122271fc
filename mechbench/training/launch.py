"""Starting the processes of a data-parallel run on this machine.

They meet at a file, which no other process can take from them, and talk over the loopback device
alone: nothing listens for other machines.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from mechbench.errors import ResultError
from mechbench.training.parallel import MEETING

_POLL_S = 0.1
_GRACE_S = 10.0  # for the rest, once one has ended
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _environment(processes: int, rank: int, meeting: Path) -> dict[str, str]:
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    return {
        **os.environ,
        "WORLD_SIZE": str(processes),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        MEETING: meeting.as_uri(),
        "GLOO_SOCKET_IFNAME": loopback,
        "NCCL_SOCKET_IFNAME": loopback,
    }


def _ended(children: Sequence[subprocess.Popen[bytes]]) -> bool:
    """Wait a while; return whether all have ended."""
    deadline = time.monotonic() + _GRACE_S
    while time.monotonic() < deadline and any(child.poll() is None for child in children):
        time.sleep(_POLL_S)
    return all(child.poll() is not None for child in children)


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run `mechbench *arguments` in several processes; return the leader's exit code.

    The leader, process 0, alone prints. SIGINT, SIGTERM and SIGHUP reach all of them, once each.

    Raises:
        ResultError: another process failed first; with its last line.
    """
    children: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        for child in children:
            child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in _PASSED_ON}
    with tempfile.TemporaryDirectory(prefix="mechbench-") as folder:
        errors = [Path(folder) / f"errors-{rank}.txt" for rank in range(processes)]
        try:
            for rank, path in enumerate(errors):
                with path.open("wb") as file:
                    child = subprocess.Popen(
                        [sys.executable, "-m", "mechbench", *arguments],
                        env=_environment(processes, rank, Path(folder) / "meeting"),
                        stdout=subprocess.DEVNULL if rank else None,
                        stderr=file if rank else None,
                        process_group=0,  # or a terminal's Ctrl-C would reach each of them twice
                    )
                children.append(child)
            code = _watch(children, errors)
        finally:
            for child in children:
                if child.poll() is None:
                    child.kill()
                    child.wait()
            for number, handler in before.items():
                signal.signal(number, handler)
    return code if code >= 0 else 128 - code  # killed by a signal, as a shell says it


def _watch(children: Sequence[subprocess.Popen[bytes]], errors: Sequence[Path]) -> int:
    """Wait for the leader; return its exit code."""
    leader, *others = children
    while leader.poll() is None:
        for child, path in zip(others, errors[1:], strict=True):
            # What stops one process usually stops the leader too, which then reports it.
            if child.poll() not in (None, 0) and not _ended([leader]):
                told = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                raise ResultError(
                    f"a process of the data-parallel run failed: {told[-1] if told else ''}"
                )
        time.sleep(_POLL_S)
    _ended(others)
    return int(leader.returncode)
