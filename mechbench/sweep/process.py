"""Processes that run workers: started anew, or copied from one that has loaded PyTorch already.

Loading PyTorch takes seconds, for planning as for a worker. On Linux a sweep therefore starts a
template at once, which loads what workers need while the sweep plans, and then forks them, ready
made. Elsewhere libraries do not bear to be forked, and every worker loads them for itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import IO, Protocol, TextIO

_PATHS = "import json, sys; sys.path[:], sys.argv[:] = map(json.loads, sys.argv[1:3]); "
_WORKER = _PATHS + "from mechbench.sweep.worker import main; main()"
_TEMPLATE = _PATHS + "from mechbench.sweep.template import main; main({link})"
_THREADS = "OMP_NUM_THREADS"  # that PyTorch may use


class Process(Protocol):
    """The process of a worker, see `mechbench.sweep.worker`."""

    orders: IO[str]

    def reports(self) -> Iterator[str]:
        """Give the lines that it writes, until it ends."""

    def ended(self) -> int:
        """Wait for its end; return the exit status, or the negative number of a signal."""

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing happens if the process has ended."""


class Started:
    """A process started for one worker.

    Args:
        threads: that PyTorch may use, unless the environment says how many.
    """

    def __init__(self, threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, json.dumps(sys.path), json.dumps(sys.argv)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={_THREADS: str(threads), **os.environ},
            start_new_session=True,  # Ctrl-C reaches the sweep alone, which passes it on
        )
        assert self._process.stdin is not None
        self.orders: IO[str] = self._process.stdin

    def reports(self) -> Iterator[str]:
        """Give the lines that it writes, until it ends."""
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            yield from lines

    def ended(self) -> int:
        """Wait for its end; return the exit status, or the negative number of a signal."""
        return self._process.wait()

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing happens if the process has ended."""
        self._process.send_signal(number)


class Template:
    """The process that workers are copied from, see `mechbench.sweep.template`."""

    def __init__(self) -> None:
        # Packets, so that one request is one.
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            code = _TEMPLATE.format(link=theirs.fileno())
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, json.dumps(sys.path), json.dumps(sys.argv)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={_THREADS: "1", **os.environ},  # threads do not outlive a fork
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def copy(self, threads: int) -> Process:
        """Return a copy, which begins once the template is ready.

        Raises:
            OSError: the template has ended.
        """
        return Copied(self, self._link, 0 if _THREADS in os.environ else threads)

    def ended(self) -> int:
        """Wait for its end; return the exit status, or the negative number of a signal."""
        return self._process.wait()

    def end(self) -> None:
        """End it; copies that have begun go on."""
        self._process.kill()  # first: it ends by itself where the link is closed
        self._process.wait()
        self._link.close()


class Copied:
    """A copy of a template.

    Args:
        template: to be copied.
        link: socket to it.
        threads: that PyTorch may use; 0: as the environment says.

    Raises:
        OSError: the template has ended.
    """

    def __init__(self, template: Template, link: socket.socket, threads: int) -> None:
        (orders, ours), (reports, theirs), (told, tell) = os.pipe(), os.pipe(), os.pipe()
        self.orders: IO[str] = os.fdopen(ours, "w", encoding="utf-8")
        self._reports: TextIO = os.fdopen(reports, encoding="utf-8")
        self._told: TextIO = os.fdopen(told, encoding="utf-8")
        self._template = template
        self._pid: int | None = None
        self._code: int | None = None
        try:
            socket.send_fds(link, [str(threads).encode()], [orders, theirs, tell])
        except OSError:
            for file in (self.orders, self._reports, self._told):
                file.close()
            raise
        finally:
            for descriptor in (orders, theirs, tell):
                os.close(descriptor)

    def reports(self) -> Iterator[str]:
        """Give the lines that it writes, until it ends."""
        with contextlib.suppress(ValueError):  # no number: the template ended without a copy
            self._pid = int(self._told.readline())
        with self._reports as lines:
            yield from lines

    def ended(self) -> int:
        """Wait for its end; return the exit status, or the negative number of a signal."""
        with self._told:
            code = self._told.readline()
        # Without the template, which was killed or could not load PyTorch, nobody knows its status.
        self._code = int(code) if code else self._template.ended()
        return self._code

    def send_signal(self, number: int) -> None:
        """Send a signal; a copy that has not begun is given up with its template."""
        if self._pid is None:
            self._template.end()
        elif self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)


@contextlib.contextmanager
def template() -> Iterator[Template | None]:
    """Give a template, where there can be one, for as long as the context lasts."""
    if sys.platform != "linux":
        yield None
        return
    started = Template()
    try:
        yield started
    finally:
        started.end()


def start(copied_from: Template | None, threads: int) -> Process:
    """Start a process: a copy of the template, if there is one that can be copied."""
    if copied_from is not None:
        with contextlib.suppress(OSError):
            return copied_from.copy(threads)
    return Started(threads)
