from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

import pytest

from mechbench.console.signals import Stopper, send_lost_interrupts_again

NUMBERS = [signal.SIGINT, signal.SIGTERM]


class ArrivedError(Exception):
    """What the handler of a test raises."""


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Install a handler that raises `ArrivedError`, and put the old ones back."""

    def arrived(number: int, frame: FrameType | None) -> None:
        raise ArrivedError(number)

    before = {number: signal.signal(number, arrived) for number in NUMBERS}
    yield arrived
    for number, old in before.items():
        signal.signal(number, old)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.usefixtures("handler")
def test_first_signal_is_noted_and_the_second_one_acts(number: int) -> None:
    with Stopper() as stopper:
        assert stopper.received is None
        os.kill(os.getpid(), number)
        assert stopper.received == number
        with pytest.raises(ArrivedError):
            os.kill(os.getpid(), number)


@pytest.mark.usefixtures("handler")
def test_second_signal_acts_also_if_it_is_the_other_one() -> None:
    with Stopper() as stopper:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(ArrivedError):
            os.kill(os.getpid(), signal.SIGINT)
    assert stopper.received == signal.SIGTERM


@pytest.mark.parametrize("fails", [False, True])
def test_handlers_are_put_back(handler: object, fails: bool) -> None:
    try:
        with Stopper():
            assert signal.getsignal(signal.SIGINT) != handler
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert [signal.getsignal(number) for number in NUMBERS] == [handler, handler]


def test_handlers_are_put_back_once_after_a_signal(handler: object) -> None:
    with Stopper():
        os.kill(os.getpid(), signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # somebody's own choice
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) == handler


def test_outside_the_main_thread_signals_stay_as_they_are(handler: object) -> None:
    found = []

    def work() -> None:
        with Stopper() as stopper:
            found.append((signal.getsignal(signal.SIGINT), stopper.received))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(handler, None)]
    assert signal.getsignal(signal.SIGINT) == handler


@pytest.mark.parametrize("number", NUMBERS)
def test_second_signal_ends_a_process_that_does_not_ask(number: int) -> None:
    code = (
        "import os, time\n"
        "from mechbench.console.signals import Stopper\n"
        "with Stopper() as stopper:\n"
        f"    os.kill(os.getpid(), {number:d})\n"
        "    print('noted', stopper.received, flush=True)\n"
        f"    os.kill(os.getpid(), {number:d})\n"
        "    time.sleep(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == f"noted {number:d}\n"
    assert done.returncode == -number


class Left:
    """What raises an error as it is taken down, where Python can only report it."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __del__(self) -> None:
        raise self.error


def test_an_interrupt_that_could_not_be_raised_is_sent_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reported: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: reported.append(lost.exc_type))
    send_lost_interrupts_again()
    Left(ValueError)
    assert reported == [ValueError]

    def lose_one_and_wait() -> None:
        Left(KeyboardInterrupt)
        time.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        lose_one_and_wait()
    assert reported == [ValueError]
