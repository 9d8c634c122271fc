"""A process that loads what workers need, and is then copied for each of them. Linux only.

It computes nothing, starts no threads and leaves GPUs alone: none of that survives a fork. Requests
come as packets on a socket: how many threads PyTorch may use (0: as it has), with the ends of three
pipes: for the copy to read orders from and write reports to, and for the template to tell on when
the copy begins (its process id) and when it has ended (its exit status).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import socket
from pathlib import Path

_POLL_S = 0.02  # between looks at whether a copy has ended
# What training imports only when it comes to it.
_LATE = (
    "filelock", "mechbench.operators.base", "mechbench.record.schema",
    "mechbench.training.cell", "mechbench.training.kept", "numpy.random", "pydantic",
    "pydantic.fields", "pydantic.functional_validators", "pydantic.type_adapter",
)  # fmt: skip


def main(link: int) -> None:
    """Serve the requests on this socket, and work as a worker in each copy.

    Args:
        link: file descriptor.
    """
    from mechbench.sweep.worker import main as work

    load()
    with socket.socket(fileno=link) as requests:
        threads = serve(requests)  # returns in copies only
    if threads:
        import torch

        os.environ["OMP_NUM_THREADS"] = str(threads)
        torch.set_num_threads(threads)
    work()


def load() -> None:
    """Import what every worker will use."""
    from mechbench.catalogue.registry import CATALOGUES

    for name in _LATE:
        importlib.import_module(name)
    if _with_triton():
        _try_to_import("triton")
    for catalogue in CATALOGUES.values():
        catalogue.names()  # which reads a file for each


def _try_to_import(name: str) -> None:
    with contextlib.suppress(Exception):  # a worker that needs it will say what is wrong
        importlib.import_module(name)


def _with_triton() -> bool:
    """Return whether this PyTorch can use GPUs, and comes with Triton; looks for none."""
    import torch

    from mechbench.ops.triton import has_triton

    return torch.version.cuda is not None and has_triton()


def kernels() -> list[str]:
    """Return the modules with Triton kernels, if any can run here."""
    from mechbench import ops

    if not _with_triton():
        return []
    root = Path(ops.__file__).parent
    return sorted(f"mechbench.ops.{p.parent.name}.kernels" for p in root.glob("*/kernels*"))


def serve(requests: socket.socket) -> int:
    """Make a copy for each request; return, in the copy, how many threads it may use.

    The process itself ends here once the other end of the socket is closed.
    """
    told: dict[int, int] = {}  # process id -> pipe on which to tell its end
    more = kernels()
    while True:
        _tell_ends(told)
        if not select.select([requests], [], [], 0 if more else _POLL_S if told else None)[0]:
            if more:  # as long as nobody waits
                _try_to_import(more.pop())
            continue
        given, pipes, _, _ = socket.recv_fds(requests, 16, 3, socket.MSG_CMSG_CLOEXEC)
        if not given:
            os._exit(0)  # copies see the same, and end
        pid = os.fork()
        orders, reports, tell = pipes
        if pid == 0:
            os.setsid()
            os.dup2(orders, 0)
            os.dup2(reports, 1)
            for pipe in (*pipes, *told.values()):
                os.close(pipe)
            return int(given)
        os.close(orders)
        os.close(reports)
        told[pid] = tell
        _tell(tell, pid)


def _tell_ends(told: dict[int, int]) -> None:
    """Tell of the copies that have ended since."""
    while told:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        pipe = told.pop(pid)
        _tell(pipe, os.waitstatus_to_exitcode(status))
        os.close(pipe)


def _tell(pipe: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # the sweep is gone
        os.write(pipe, f"{number}\n".encode())
