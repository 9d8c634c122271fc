from __future__ import annotations

import threading
import time

from mechbench.training.gate.watchdog import Watchdog


def test_call_that_does_not_return_is_told_once_with_what_it_does() -> None:
    told: list[str] = []
    dog = Watchdog("mine", told.append, after_s=60)
    dog.busy("forward at L=8")
    dog.look(time.monotonic() + 59)
    assert told == []
    for _ in range(2):
        dog.look(time.monotonic() + 61)
    assert told == [
        "operator 'mine' has not returned for 60 s (forward at L=8); Ctrl-C, twice if need be, "
        "ends the run"
    ]


def test_what_has_returned_and_what_began_anew_is_not_told() -> None:
    told: list[str] = []
    dog = Watchdog("mine", told.append)
    dog.look(time.monotonic() + 1000)
    dog.busy("forward at L=8")
    dog.idle()
    dog.look(time.monotonic() + 1000)
    assert told == []


def test_thread_of_its_own_tells_while_the_call_hangs() -> None:
    heard = threading.Event()
    dog = Watchdog("mine", lambda text: heard.set(), after_s=0.01)
    with dog.watching():
        dog.busy("forward at L=8")
        assert heard.wait(60)


def test_no_thread_stays_behind() -> None:
    dog = Watchdog("mine", lambda text: None, after_s=0.01)
    with dog.watching():
        (thread,) = [t for t in threading.enumerate() if t.name == "mechbench-watchdog"]
        assert thread.daemon
    thread.join(60)
    assert not thread.is_alive()
