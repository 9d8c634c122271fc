from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from mechbench.training.baton import Baton
from training.threads import PATIENCE_S, in_threads


def test_one_thread_at_a_time_runs() -> None:
    baton, inside, most = Baton(), 0, 0

    def work() -> None:
        nonlocal inside, most
        with baton:
            for _ in range(50):
                inside += 1
                most = max(most, inside)
                time.sleep(1e-5)  # another thread could run now
                inside -= 1
                baton.pass_on()
                with baton.released():
                    pass

    assert in_threads(*[work] * 5) == []
    assert (inside, most, baton.members) == (0, 1, 0)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_turns_go_round(n: int) -> None:
    baton, turns = Baton(), list[int]()
    begun = threading.Barrier(n)

    def work(number: int) -> Callable[[], None]:
        def turn() -> None:
            with baton:
                with baton.released():
                    begun.wait(PATIENCE_S)
                while len(turns) < 20 * n:
                    turns.append(number)
                    deadline = time.monotonic() + PATIENCE_S
                    while n > 1 and not baton.wanted and len(turns) < 20 * n:
                        assert time.monotonic() < deadline
                        time.sleep(1e-4)
                    baton.pass_on()

        return turn

    assert in_threads(*(work(i) for i in range(n))) == []
    settled = turns[5 * n : 19 * n]  # the first come when all are there
    assert all(len(set(settled[i : i + n])) == n for i in range(len(settled) - n))


def test_an_error_frees_it() -> None:
    baton, done = Baton(), list[str]()

    def fails() -> None:
        with baton:
            raise ValueError("in a lane")

    def fails_outside() -> None:
        with baton, baton.released():
            raise KeyError("while released")

    def works() -> None:
        with baton:
            done.append("works")

    raised = in_threads(fails, works, fails_outside, works)
    assert {type(error) for error in raised} == {ValueError, KeyError}
    assert (done, baton.members) == (["works"] * 2, 0)


def test_alone_waits_for_those_that_released_it_and_keeps_others_in() -> None:
    baton, events = Baton(), list[str]()
    out, back = threading.Event(), threading.Event()

    def waits() -> None:
        with baton:
            with baton.released():
                out.set()
                assert back.wait(PATIENCE_S)
                events.append("waited")
            events.append("back")

    def captures() -> None:
        assert out.wait(PATIENCE_S)
        with baton:
            threading.Timer(0.05, back.set).start()
            with baton.alone():
                events.append("captures")
                time.sleep(0.05)
                events.append("captured")

    assert in_threads(waits, captures) == []
    assert events == ["waited", "captures", "captured", "back"]


def test_alone_by_itself_does_not_wait() -> None:
    baton = Baton()
    with baton, baton.alone():
        assert not baton.wanted
        baton.pass_on()  # to nobody
