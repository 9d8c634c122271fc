"""Start the processes of one data-parallel run on this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from mechbench.errors import ResultError

_POLL_S = 0.1
_GRACE_S = 10.0  # for the rest, once one has ended


def _stop(children: Sequence[subprocess.Popen[str]]) -> None:
    for child in children:
        child.terminate()


def _ended(children: Sequence[subprocess.Popen[str]]) -> bool:
    """Wait a while; return whether all have ended."""
    deadline = time.monotonic() + _GRACE_S
    while time.monotonic() < deadline and any(child.poll() is None for child in children):
        time.sleep(_POLL_S)
    return all(child.poll() is not None for child in children)


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run `mechbench *arguments` in so many processes; return the leader's exit code.

    The leader, process 0, alone prints. SIGINT and SIGTERM reach all of them.

    Raises:
        ResultError: another process failed first; with its last line.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "mechbench", *arguments],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL if rank else None,
            stderr=subprocess.PIPE if rank else None,
            text=True,
        )
        for rank in range(processes)
    ]
    # Ctrl-C reaches the children from the terminal; a signal to this process alone is passed on.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: _stop(children))
    leader, *others = children
    try:
        while leader.poll() is None:
            failed = [child for child in others if child.poll() not in (None, 0)]
            # What stops one stops the leader too as a rule, and that one tells.
            if failed and not _ended([leader]):
                error = failed[0].communicate()[1].strip().splitlines()
                raise ResultError(
                    f"a process of the data-parallel run failed: {error[-1] if error else ''}"
                )
            time.sleep(_POLL_S)
        _ended(others)
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
    code = int(leader.returncode)
    return code if code >= 0 else 128 - code  # killed by a signal, as a shell says it
