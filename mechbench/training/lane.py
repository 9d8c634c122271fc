"""A cell's place beside others in its process: a thread, a CUDA stream, and turns with a baton.

By default a process runs one cell at a time, in its only lane. Where cells share a process
(`SharedLane`) each queues its steps on a stream of its own, so that a GPU which one small cell
leaves idle works for several. Python runs in one lane at a time, and changes lanes between steps,
between the parts of a cell and while a lane waits for the GPU at a validation: nowhere else.

What is the process's, and would be mixed there, goes with the lane: the random generators of
Python, NumPy and the CPU, the record of ops used, and the state of the device's generator, of which
graphs hold a part in GPU memory (two that are replayed at once must not share it).

A capture is as CUDA's default mode wants it, without a call from another thread: those that have
the baton released are waited for, and the others run no Python. It is made on the lane's own
stream, since the workspaces of cuBLAS, which a graph goes on to use, are a stream's.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

from mechbench.ops import used
from mechbench.training.baton import Baton
from mechbench.training.draws import device_generator

TURN = 8  # steps that a lane queues before it hands over
BROKEN = 70  # exit status of a process whose GPU takes no more calls


class Lane:
    """The only lane of a process."""

    shared = False

    @property
    def stopped(self) -> int | None:
        """The number of the signal on which the cell is to write a checkpoint and end."""
        return None

    @property
    def crowded(self) -> bool:
        """Whether other cells are in flight, which may take the memory that this one wants."""
        return False

    def pass_on(self, *, now: bool = False) -> None:
        """Let other cells run, before a step, or anywhere between things that belong together."""

    def wait(self, device: str) -> None:
        """Wait until the GPU has done what this cell asked for."""
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)

    def alone(self) -> AbstractContextManager[None]:
        """Give a context in which no other thread calls CUDA, for a capture."""
        return nullcontext()

    def failed(self, device: str) -> None:
        """Be told of an error before it is stored as this cell's."""


SOLE = Lane()


class SharedLane(Lane):
    """A lane beside others; one thread enters it, always the same.

    Args:
        baton: of all lanes of the process.
        stopped: returns the number of the signal that ends them.
        turn: steps before it hands over.
    """

    shared = True

    def __init__(self, baton: Baton, stopped: Callable[[], int | None], turn: int = TURN) -> None:
        self._baton, self._stopped, self._turn = baton, stopped, turn
        self._steps = 0
        self._device: torch.device | None = None  # of CUDA
        self._stream: Any = None
        self._generator: torch.Generator | None = None  # holds the lane's state of the device's
        self._used: used.Record = {}

    @property
    def stopped(self) -> int | None:
        """The number of the signal on which the cell is to write a checkpoint and end."""
        return self._stopped()

    @property
    def crowded(self) -> bool:
        """Whether other cells are in flight, which may take the memory that this one wants."""
        return self._baton.members > 1

    @contextmanager
    def on(self, device: str) -> Iterator[None]:
        """Run in this lane, on a device, once it is its turn."""
        with self._baton:
            if device.startswith("cuda"):
                self._settle(torch.device(device))
            self._arrive()
            try:
                yield
            finally:
                self._depart()

    def pass_on(self, *, now: bool = False) -> None:
        """Let other cells run, every few steps or now."""
        self._steps += 1
        if (now or self._steps % self._turn == 0) and self._baton.wanted:
            with self._away():
                self._baton.pass_on()

    def wait(self, device: str) -> None:
        """Wait until the lane's stream is done, while other cells run."""
        if self._stream is not None:
            with self._away(), self._baton.released():
                self._stream.synchronize()

    def alone(self) -> AbstractContextManager[None]:
        """Give a context in which no other thread calls CUDA, for a capture."""
        return self._baton.alone()

    def failed(self, device: str) -> None:
        """End the process if its GPU takes no more calls and other cells are in flight.

        The error may be of any of them: whoever started the process finds out, one by one.
        """
        if self.crowded and broken(device):
            os._exit(BROKEN)

    def _settle(self, device: torch.device) -> None:
        """Make the stream and the generator's state of this lane's thread, on its first cell."""
        if self._stream is not None:
            return
        index = torch.cuda.current_device() if device.index is None else device.index
        self._device = torch.device("cuda", index)
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        torch.cuda.set_stream(self._stream)  # of this thread, and the device with it
        self._generator = torch.Generator(self._device)

    @contextmanager
    def _away(self) -> Iterator[None]:
        """Find what is the process's as it was left, though other lanes run in the context."""
        python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
        cpu = torch.default_generator.get_state()
        self._depart()
        try:
            yield
        finally:
            self._arrive()
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
            torch.default_generator.set_state(cpu)

    def _arrive(self) -> None:
        used.exchange(self._used)
        if self._device is not None and self._generator is not None:
            device_generator(self._device).graphsafe_set_state(self._generator)

    def _depart(self) -> None:
        self._used = used.exchange({})
        if self._device is not None:
            self._generator = device_generator(self._device).graphsafe_get_state()


def broken(device: str) -> bool:
    """Return whether a GPU takes no more calls of this process, as after a fault of a kernel."""
    if not device.startswith("cuda"):
        return False
    try:
        torch.cuda.synchronize(device)
    except Exception:
        return True
    return False
