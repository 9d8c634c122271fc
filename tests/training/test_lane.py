from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mechbench.ops.used import note, ops_used
from mechbench.training import lane as module
from mechbench.training.baton import Baton
from mechbench.training.draws import seed_step
from mechbench.training.lane import SOLE, SharedLane
from mechbench.training.optimiser import make_optimizer
from mechbench.training.step import Stepper
from training.threads import PATIENCE_S, in_threads

X = torch.zeros(1)


def numbers() -> list[float]:
    """Draw from every generator of the process."""
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]  # noqa: NPY002


def seed(value: int) -> None:
    random.seed(value)
    np.random.seed(value)  # noqa: NPY002
    torch.manual_seed(value)


def together(
    work: Callable[[SharedLane, int], None],
    numbers: Sequence[int],
    turn: int = 1,
    device: str = "cpu",
) -> None:
    """Run `work` with each number, in a lane and a thread of its own."""
    baton = Baton()

    def run(number: int) -> None:
        lane = SharedLane(baton, lambda: None, turn)
        with lane.on(device):
            work(lane, number)

    assert in_threads(*(partial(run, number) for number in numbers)) == []


def test_lanes_draw_what_they_would_draw_alone() -> None:
    def draws(lane: SharedLane, number: int) -> list[list[float]]:
        seed(number)
        found = []
        for _ in range(6):
            found.append(numbers())
            lane.pass_on()
        return found

    found: dict[int, list[list[float]]] = {}
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        together(lambda lane, number: found.update({number: draws(lane, number)}), range(3))
        for number in range(3):
            alone = draws(SharedLane(Baton(), lambda: None), number)
            assert found[number] == alone
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])


def test_lanes_record_their_own_ops() -> None:
    met = threading.Event()

    def work(lane: SharedLane, number: int) -> None:
        note(f"op-{number}", X, "torch")
        while not lane._baton.wanted and not met.is_set():
            met.wait(0.01)
        met.set()
        lane.pass_on()
        note(f"op-{number}", X, "again")
        assert ops_used("cpu") == {f"op-{number}": "again, torch"}

    outside = ops_used("cpu")
    together(work, range(2))
    assert ops_used("cpu") != {"op-0": "again, torch"}
    assert {k: v for k, v in outside.items() if k.startswith("op-")} == {}


def test_turns_are_several_steps_long() -> None:
    order = list[int]()
    both = threading.Barrier(2)

    def work(lane: SharedLane, number: int) -> None:
        with lane._baton.released():
            both.wait(PATIENCE_S)
        while number == 0 and not lane._baton.wanted and 1 not in order:
            both_in.wait(0.01)
        for _ in range(9):
            order.append(number)
            lane.pass_on()

    both_in = threading.Event()
    together(work, range(2), turn=3)
    changes = [i for i in range(1, len(order)) if order[i] != order[i - 1]]
    assert changes
    assert all(i % 3 == 0 for i in changes)


def test_a_lane_may_hand_over_at_once() -> None:
    order = list[int]()
    both = threading.Barrier(2)

    def work(lane: SharedLane, number: int) -> None:
        with lane._baton.released():
            both.wait(PATIENCE_S)
        for _ in range(5):
            order.append(number)
            lane.pass_on(now=True)

    together(work, range(2), turn=1000)
    assert sorted(order) == [0] * 5 + [1] * 5
    assert order[1:6] not in ([0] * 5, [1] * 5)


def test_a_stop_is_seen_in_the_lane() -> None:
    stopped: list[int] = []
    lane = SharedLane(Baton(), lambda: stopped[0] if stopped else None)
    assert (SOLE.stopped, lane.stopped) == (None, None)
    stopped.append(15)
    assert lane.stopped == 15


def test_a_broken_gpu_ends_the_process_only_where_cells_share_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(module.os, "_exit", ended.append)
    monkeypatch.setattr(module, "broken", lambda device: device == "cuda:0")
    baton = Baton()
    lane = SharedLane(baton, lambda: None)
    with lane.on("cpu"):
        lane.failed("cuda:0")
        assert ended == []  # its own fault: stored as such
        assert not lane.crowded
        baton.members += 1
        assert lane.crowded
        lane.failed("cuda:1")
        assert ended == []
        lane.failed("cuda:0")
        assert ended == [module.BROKEN]
        baton.members -= 1
    SOLE.failed("cuda:0")
    assert len(ended) == 1


def trained(lane: SharedLane, number: int) -> list[Tensor]:
    """Take 40 steps that draw, in a graph once they are warm; return each step's loss and norm."""
    torch.manual_seed(number)
    layers = nn.Linear(64, 512), nn.Dropout(0.5), nn.Tanh(), nn.Linear(512, 64)
    model, rows = nn.Sequential(*layers).cuda(), []
    inputs = torch.randn(256, 64).cuda()

    def gradients(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        model.zero_grad(set_to_none=True)
        loss = (model(x) - y).square().mean()
        loss.backward()
        return loss.detach(), torch.zeros(2, device="cuda")

    told: list[str] = []
    stepper = Stepper(
        model, make_optimizer(model, 1e-2, 0.1), gradients, 1.0, True, told.append,
        alone=lane.alone,
    )  # fmt: skip
    for step in range(40):
        lane.pass_on()
        seed_step(number, step, "cuda")
        results = stepper.replay(inputs, inputs, 1.0)
        if results is None:
            results = stepper.gradients(inputs, inputs)
            stepper.update(1.0)
        rows.append(torch.stack([results[0], results[2]]))
        if step % 10 == 9:
            lane.wait("cuda")
    assert told == []
    return rows


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_graphs_replayed_side_by_side_compute_and_draw_as_alone() -> None:
    def run(numbers: Sequence[int]) -> dict[int, list[list[float]]]:
        found: dict[int, list[list[float]]] = {}

        def work(lane: SharedLane, number: int) -> None:
            found[number] = torch.stack(trained(lane, number)).tolist()

        together(work, numbers, turn=2, device="cuda")
        return found

    alone = run([0]) | run([1]) | run([2])
    for _ in range(3):
        assert run([0, 1, 2]) == alone
