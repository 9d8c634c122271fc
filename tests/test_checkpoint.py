from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mechbench.checkpoint import load_checkpoint, save_checkpoint
from mechbench.errors import ResultError
from mechbench.optim import make_optimizer
from mechbench.train import Progress

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
    metrics=[{"step": 5, "loss": 1 / 3, "validation_accuracy": None}],
)


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


@pytest.mark.parametrize(
    "damage",
    [
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
    progress, warning = load_checkpoint(path, "cell", model, optimizer)
    assert progress is None
    assert warning is not None
    assert warning.startswith(f"{path} is corrupt (")
    assert warning.endswith("set aside as checkpoint.pt.corrupt-1, training starts over")
    assert "\n" not in warning
    assert same(before, model.state_dict())
    # The file is there under its new name, and nothing that it asked for was done.
    assert os.listdir(path.parent) == ["checkpoint.pt.corrupt-1"]
    assert (path.parent / "checkpoint.pt.corrupt-1").read_bytes() == damaged


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
