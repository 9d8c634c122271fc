from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mechbench.errors import ConfigError, OperatorError, ResultError
from mechbench.record.config import Config
from mechbench.training.branches import StableDecay
from mechbench.training.checkpoint import (
    check_extra_state,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from mechbench.training.loop import Progress
from mechbench.training.named_schedules import SCHEDULES
from mechbench.training.optimiser import make_optimizer
from mechbench.training.schedules import Constant

PROGRESS = Progress(
    step=7,
    tokens=99,
    stage=1,
    stage_tokens=3,
    halvings=2,
    streak=1,
    causal=False,
    excluded=4,
    train_s=0.1 + 0.2,
    pending=[1, 2, 3],
    metrics=[
        {
            "step": 5, "tokens": 70, "seqlen": 16, "loss": 1 / 3, "train_accuracy": 0.5,
            "validation_accuracy": None, "validation_dense_accuracy": None, "tokens_per_s": 1e3,
            "train_s": 0.1, "branch": 0,
        }
    ],
)  # fmt: skip


def build(seed: int, width: int = 4) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a model after three steps, so that the optimizer has moments."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Embedding(5, width), nn.Linear(width, 5))
    optimizer = make_optimizer(model, lr=1e-2, weight_decay=0.1)
    for _ in range(3):
        step(model, optimizer)
    return model, optimizer


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.arange(5)).square().sum().backward()
    optimizer.step()


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one) and one.keys() == other.keys()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, "cell", *build(0), PROGRESS)
    return path


def test_round_trip_is_exact_and_the_next_steps_are_the_same(path: Path) -> None:
    model, optimizer = build(0)
    other, its_optimizer = build(1)
    torch.manual_seed(99)  # what is restored does not depend on the generator
    assert load_checkpoint(path, "cell", other, its_optimizer) == (PROGRESS, None)
    assert same(model.state_dict(), other.state_dict())
    for _ in range(3):
        step(model, optimizer)
        step(other, its_optimizer)
        assert same(model.state_dict(), other.state_dict())


def test_generators_are_neither_stored_nor_moved(path: Path) -> None:
    before = torch.get_rng_state()
    model, optimizer = build(1)
    torch.set_rng_state(before)
    save_checkpoint(path, "cell", model, optimizer, PROGRESS)
    load_checkpoint(path, "cell", model, optimizer)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_file_there_is_nothing_to_say(tmp_path: Path) -> None:
    model, optimizer = build(0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert load_checkpoint(tmp_path / "none.pt", "cell", model, optimizer) == (None, None)
    assert same(before, model.state_dict())


class Evil:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, ("pwned",)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.write_bytes(data)


def without_progress(path: Path) -> None:
    data = torch.load(path, weights_only=True)
    del data["progress"]
    torch.save(data, path)


def of_a_later_version(path: Path) -> None:
    data = torch.load(path, weights_only=True)
    data["progress"]["colour"] = 1
    torch.save(data, path)


def put(*keys: Any, value: Any) -> Callable[[Path], None]:
    """Return what writes another value into a checkpoint."""

    def damage(path: Path) -> None:
        data = torch.load(path, weights_only=True)
        holder = data
        for key in keys[:-1]:
            holder = holder[key]
        holder[keys[-1]] = value
        torch.save(data, path)

    return damage


def of_doubles(path: Path) -> None:
    model, optimizer = build(0)
    save_checkpoint(path, "cell", model.double(), optimizer, PROGRESS)


DAMAGES = [
    put("progress", value=7),
    put("progress", "step", value=7.0),
    put("progress", "step", value=-1),
    put("progress", "step", value=2**70),
    put("progress", "step", value=1),  # the optimizer took three
    put("progress", "tokens", value=True),
    put("progress", "tokens", value=1),  # fewer than steps
    put("progress", "halvings", value=1000),
    put("progress", "stop", value="x"),
    put("progress", "causal", value=1),
    put("progress", "train_s", value=float("nan")),
    put("progress", "pending", value=[0, 0]),
    put("progress", "pending", 0, value="1"),
    put("progress", "metrics", value=[1]),
    put("progress", "metrics", value=[{"step": 5}]),
    put("progress", "metrics", 0, "step", value=8),
    put("progress", "metrics", 0, "loss", value=torch.zeros(3)),
    put("model", value=None),
    put("model", "1.weight", value="x"),
    put("model", "1.weight", value=torch.zeros(3)),
    put("model", "1.nothing", value=0),
    put("model", "", value=torch.zeros(3)),
    put("buffers", value=[]),
    put("buffers", "1.mean", value=None),
    put("optimizer", value={}),
    put("optimizer", "param_groups", value=[]),
    put("optimizer", "param_groups", 0, value=1),
    put("optimizer", "state", value=None),
    put("optimizer", "state", 9, value={}),
    put("optimizer", "state", 0, value={}),
    put("optimizer", "state", 0, "step", value="x"),
    put("optimizer", "state", 0, "step", value=torch.tensor(float("nan"))),
    put("optimizer", "state", 0, "exp_avg", value=torch.zeros(3)),
    put("optimizer", "state", 0, "exp_avg", value=None),
    put("optimizer", "state", 0, "exp_avg_sq", value=torch.zeros(5, 4, dtype=torch.int64)),
    of_doubles,
]


@pytest.mark.parametrize(
    "damage",
    [
        *DAMAGES,
        truncate,
        flip,
        without_progress,
        of_a_later_version,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no checkpoint at all"),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save({"cell_id": "cell", "model": Evil()}, path),
        lambda path: save_checkpoint(path, "another", *build(0), PROGRESS),
        lambda path: save_checkpoint(path, "cell", *build(0, width=6), PROGRESS),
    ],
)
def test_what_cannot_be_trusted_is_set_aside_and_changes_nothing(
    path: Path, damage: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    damage(path)
    damaged = path.read_bytes()
    model, optimizer = build(1)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    moments = optimizer.state_dict()["state"]
    progress, warning = load_checkpoint(path, "cell", model, optimizer)
    assert progress is None
    assert optimizer.state_dict()["state"] == moments
    assert warning is not None
    assert warning.startswith(f"{path} is corrupt (")
    assert warning.endswith("set aside as checkpoint.pt.corrupt-1, training starts over")
    assert "\n" not in warning
    assert same(before, model.state_dict())
    # The file is there under its new name, and nothing that it asked for was done.
    assert os.listdir(path.parent) == ["checkpoint.pt.corrupt-1"]
    assert (path.parent / "checkpoint.pt.corrupt-1").read_bytes() == damaged


def test_buffers_are_given_back_if_a_later_part_does_not_fit(tmp_path: Path) -> None:
    path, u = tmp_path / "checkpoint.pt", torch.tensor([1.0, 2.0])
    model, optimizer = stateful()
    assert load_checkpoint(path, "cell", model, optimizer) == (None, None)
    model(u)
    save_checkpoint(path, "cell", model, optimizer, PROGRESS)
    other, its_optimizer = stateful()

    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("x")

    its_optimizer.load_state_dict = refuse  # type: ignore[method-assign]  # the last part
    assert load_checkpoint(path, "cell", other, its_optimizer)[0] is None
    fresh = stateful()[0]
    assert dict(other.named_buffers()).keys() == dict(fresh.named_buffers()).keys()
    assert torch.equal(other(u), fresh(u))


def test_warning_says_whose_the_checkpoint_is(path: Path) -> None:
    _, warning = load_checkpoint(path, "mine", *build(0))
    assert warning is not None
    assert "it belongs to cell cell" in warning


def test_running_out_of_memory_condemns_no_checkpoint(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*args: object, **kwargs: object) -> None:
        raise MemoryError

    before = path.read_bytes()
    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(MemoryError):
        load_checkpoint(path, "cell", *build(0))
    assert path.read_bytes() == before


def test_failed_save_keeps_the_previous_checkpoint(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(ResultError, match="No space left on device"):
        save_checkpoint(path, "cell", *build(1), Progress(step=8))
    assert load_checkpoint(path, "cell", *build(1)) == (PROGRESS, None)
    assert os.listdir(path.parent) == [path.name]


class Stateful(nn.Module):
    """Keeps what a plain state dict does not restore."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.register_buffer("mean", torch.zeros(2), persistent=False)
        self.register_buffer("table", torch.arange(3.0), persistent=False)
        self.register_buffer("later", None)
        self.register_buffer("grows", torch.zeros(0))
        self.seen: Any = 0

    def get_extra_state(self) -> Any:
        return {"seen": self.seen, "where": torch.tensor([self.weight.sum().item()])}

    def set_extra_state(self, state: Any) -> None:
        self.seen = state["seen"]

    def forward(self, u: Tensor) -> Tensor:
        self.seen += 1
        self.mean += u
        self.later = u if self.later is None else self.later + u
        self.grows = torch.cat([self.grows, u])
        if not hasattr(self, "lazy"):
            self.register_buffer("lazy", torch.zeros(2))
            self.register_buffer("hidden", torch.zeros(2), persistent=False)
        self.lazy += 2 * u
        self.hidden -= u
        total = self.mean + self.later + self.lazy + self.hidden + self.grows.sum() + self.seen
        return self.weight * total


def stateful() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Sequential(Stateful())
    return model, make_optimizer(model, lr=1e-2, weight_decay=0.1)


def test_what_an_operator_keeps_beside_its_weights_is_restored(tmp_path: Path) -> None:
    path, u = tmp_path / "checkpoint.pt", torch.tensor([1.0, 2.0])
    model, optimizer = stateful()
    assert load_checkpoint(path, "cell", model, optimizer) == (None, None)
    for _ in range(3):
        model(u)
    save_checkpoint(path, "cell", model, optimizer, PROGRESS)
    stored = torch.load(path, weights_only=True)
    assert set(stored["buffers"]) == {"0.mean", "0.hidden"}  # "table" is as it was built
    other, its_optimizer = stateful()
    assert load_checkpoint(path, "cell", other, its_optimizer) == (PROGRESS, None)
    for _ in range(2):
        assert torch.equal(other(u), model(u))


def test_extra_state_that_the_operator_refuses_changes_no_weight(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    model, optimizer = stateful()
    model[0].weight.data += 1  # type: ignore[index, operator]
    save_checkpoint(path, "cell", model, optimizer, PROGRESS)
    other, its_optimizer = stateful()

    def refuse(state: Any) -> None:
        raise KeyError("seen")

    other[0].set_extra_state = refuse  # type: ignore[index, assignment]
    progress, warning = load_checkpoint(path, "cell", other, its_optimizer)
    assert progress is None
    assert "set aside as checkpoint.pt.corrupt-1, training starts over" in str(warning)
    assert other[0].weight.tolist() == [1, 1]  # type: ignore[index]


def test_extra_state_is_tried_before_training() -> None:
    model = stateful()[0]
    assert check_extra_state(model, "mine") is None
    assert check_extra_state(nn.Linear(2, 2), "mine") is None
    model[0].seen = Path("x")  # type: ignore[index, assignment]
    warning = check_extra_state(model, "mine")
    assert warning is not None
    assert warning.startswith("the extra state of operator 'mine' holds objects")
    assert "\n" not in warning
    model[0].seen = lambda: 0  # type: ignore[index, assignment]
    with pytest.raises(OperatorError, match="operator 'mine' has an extra state that cannot be st"):
        check_extra_state(model, "mine")


SMALL = Config(
    "mine", "recall", seqlen=16, vocab_size=8, lr=1e-2, curriculum=((16, 8),), budget_tokens=10
)


def scheduled(
    name: str, seed: int = 0, steps: int = 3
) -> tuple[nn.Module, torch.optim.Optimizer, Constant]:
    """Return a model after some steps under a schedule; "wsd" is in a branch then."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5))
    kind = SCHEDULES[name]
    optimizer = kind.optimizer(model, SMALL.lr, SMALL.weight_decay)
    schedule = kind(model, optimizer, SMALL.warmup_steps)
    if isinstance(schedule, StableDecay):
        schedule._first_tokens = 10
    for number in range(1, steps + 1):
        optimizer.zero_grad()
        model(torch.arange(5)).square().sum().backward()
        optimizer.step()
        schedule.updated(number)
        if number == 2:
            schedule.validated(2, 20, 0.5)
    return model, optimizer, schedule


def stored(path: Path, name: str) -> tuple[nn.Module, torch.optim.Optimizer, Constant]:
    model, optimizer, schedule = scheduled(name)
    save_checkpoint(path, SMALL.cell_id, model, optimizer, ON, schedule)
    return model, optimizer, schedule


ON = Progress(step=3, tokens=30)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_goes_on_as_it_was(tmp_path: Path, name: str) -> None:
    path = tmp_path / "checkpoint.pt"
    model, optimizer, schedule = stored(path, name)
    assert schedule.branching == (name == "wsd")
    other, its_optimizer, its_schedule = scheduled(name, seed=1, steps=0)
    found = load_checkpoint(path, SMALL.cell_id, other, its_optimizer, SMALL, its_schedule)
    assert found == (ON, None)
    for number in range(4, 8):
        for net, opt, sched in ((model, optimizer, schedule), (other, its_optimizer, its_schedule)):
            opt.zero_grad()
            net(torch.arange(5)).square().sum().backward()
            opt.step()
            sched.updated(number)
        step = schedule.validated(number, 10 * number, 0.5)
        assert step == its_schedule.validated(number, 10 * number, 0.5)
        assert same(model.state_dict(), other.state_dict())
        with schedule.weights(), its_schedule.weights():
            assert same(model.state_dict(), other.state_dict())


@pytest.mark.parametrize("name", SCHEDULES)
def test_what_is_looked_at_are_the_weights_that_were_evaluated(tmp_path: Path, name: str) -> None:
    path = tmp_path / "checkpoint.pt"
    model, _, schedule = stored(path, name)
    config = dataclasses.replace(SMALL, schedule=name)
    save_checkpoint(path, config.cell_id, model, scheduled(name)[1], ON, schedule)
    looked_at = scheduled(name, seed=1, steps=0)[0]
    load_weights(path, config, looked_at)
    with schedule.weights():
        assert same(model.state_dict(), looked_at.state_dict())


def test_a_checkpoint_of_protocol_2_is_looked_at_as_it_is(tmp_path: Path) -> None:
    path, old = tmp_path / "checkpoint.pt", dataclasses.replace(
        SMALL, protocol=2, schedule="cosine"
    )  # fmt: skip
    model, optimizer = build(0)
    save_checkpoint(path, old.cell_id, model, optimizer, PROGRESS)
    data = torch.load(path, weights_only=True)
    for later in ("schedule", "code"):
        del data[later]
    torch.save(data, path)
    looked_at = build(1)[0]
    load_weights(path, old, looked_at)
    assert same(model.state_dict(), looked_at.state_dict())


NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((name, put("schedule", value=None)) for name in SCHEDULES),
        *((name, put("schedule", value={"x": 1})) for name in SCHEDULES),
        *((name, lambda path: _without(path, "schedule")) for name in SCHEDULES),
        ("averaged", put("schedule", "averages", value=None)),
        ("averaged", put("schedule", "averages", value=[])),
        ("averaged", put("schedule", "averages", 0, value=torch.zeros(3))),
        ("averaged", put("schedule", "averages", 0, value=torch.zeros(5, 4).double())),
        ("schedule-free", put("optimizer", "z", value=torch.zeros(3))),
        ("schedule-free", put("optimizer", "y", value="x")),
        ("schedule-free", put("optimizer", "more", value=torch.zeros(3))),
        ("schedule-free", put("optimizer", "power", value=torch.tensor(0.0).double())),
        ("schedule-free", put("optimizer", "power", value=torch.tensor(NAN).double())),
        ("schedule-free", put("optimizer", "total", value=torch.tensor(NAN))),
        ("schedule-free", put("optimizer", value=None)),
        ("wsd", put("schedule", "best", value=NAN)),
        ("wsd", put("schedule", "best", value="x")),
        ("wsd", put("schedule", "stale", value=-1)),
        ("wsd", put("schedule", "stale", value=0.5)),
        ("wsd", put("schedule", "aside_tokens", value=31)),
        ("wsd", put("schedule", "branch", value=7)),
        ("wsd", put("schedule", "branch", value=None)),
        ("wsd", put("schedule", "branch", "step", value=True)),
        ("wsd", put("schedule", "branch", "length_tokens", value=0)),
        ("wsd", put("schedule", "branch", "validations", value=3)),
        ("wsd", put("schedule", "trunk", value=[])),
        ("wsd", put("schedule", "trunk", value=None)),
        ("wsd", put("schedule", "trunk", 0, value=torch.zeros(3))),
        ("wsd", put("schedule", "trunk", 5, value=None)),
    ],
)
def test_a_damaged_schedule_is_set_aside_and_changes_nothing(
    tmp_path: Path, name: str, damage: Callable[[Path], object]
) -> None:
    path = tmp_path / "checkpoint.pt"
    stored(path, name)
    damage(path)
    model, optimizer, schedule = scheduled(name, seed=1)
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict(), schedule.state_dict()))
    progress, warning = load_checkpoint(path, SMALL.cell_id, model, optimizer, SMALL, schedule)
    assert progress is None
    assert "set aside as checkpoint.pt.corrupt-1, training starts over" in str(warning)
    after = (model.state_dict(), optimizer.state_dict(), schedule.state_dict())
    assert repr(after) == repr(before)


def _without(path: Path, key: str) -> None:
    data = torch.load(path, weights_only=True)
    del data[key]
    torch.save(data, path)


def test_other_code_is_refused_and_the_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    model, optimizer = build(0)
    save_checkpoint(path, "cell", model, optimizer, PROGRESS, code={"a": "1", "b": "2"})
    written = path.read_bytes()
    assert load_checkpoint(path, "cell", *build(1), code={"a": "1", "b": "2"})[0] == PROGRESS
    for code in ({"a": "1"}, {"a": "1", "b": "3"}, {"a": "1", "b": "2", "c": "4"}):
        with pytest.raises(ConfigError, match=r"^[bc] changed since .*checkpoint.pt was written"):
            load_checkpoint(path, "cell", *build(1), code=code)
    assert path.read_bytes() == written
    put("code", value=[])(path)
    progress, warning = load_checkpoint(path, "cell", *build(1), code={})
    assert progress is None
    assert "it does not say what code it was trained with" in str(warning)
