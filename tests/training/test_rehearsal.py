from __future__ import annotations

import copy
import dataclasses
import hashlib
import random
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mechbench.catalogue.registry import register_operator
from mechbench.ops.triton import has_triton, interpreted
from mechbench.plan.resolve import resolve, task_of
from mechbench.training import rehearsal, train_cell
from mechbench.training.loop import Progress
from mechbench.training.model import Backbone, build_model
from mechbench.training.rehearsal import passes, rehearse, wake
from mechbench.training.run import Run

_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def _made(device: str = "cpu", **changes: Any) -> tuple[Backbone, Run]:
    settings: dict[str, Any] = {
        "seqlen": 32, "vocab_size": 8, "d_model": 16, "n_layers": 1, "batch_size": 6,
        "curriculum": "none", "n_test": 10, "n_validation": 6, "device": device, **changes,
    }  # fmt: skip
    operator = settings.pop("operator", "hyena")
    config, device = resolve(operator, settings.pop("task", "recall"), **settings)
    run = Run(config, device, task_of(config))
    return build_model(config, run.task.input_seqlen).to(device), run


def _tensors(model: nn.Module) -> list[Tensor]:
    return [t.clone() for t in (*model.parameters(), *model.buffers())]


def _drawn() -> list[float]:
    numbers = [random.random(), np.random.rand(), float(torch.rand(()))]  # noqa: NPY002
    return numbers + ([float(torch.rand((), device="cuda"))] if torch.cuda.is_available() else [])


def _seed() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


def _seen(model: nn.Module, run: Run, monkeypatch: pytest.MonkeyPatch) -> set[tuple[object, ...]]:
    """Return the shape, precision and mode of every pass."""
    seen: set[tuple[object, ...]] = set()

    def look(module: Backbone, tokens: Tensor) -> Tensor:
        half = torch.is_autocast_enabled("cpu")
        seen.add((*tokens.shape, half, torch.is_grad_enabled()))
        return forward(module, tokens)

    forward = Backbone.forward
    monkeypatch.setattr(Backbone, "forward", look)
    for attempt in passes(model, run):
        attempt()
    return seen


def test_every_shape_of_a_run_is_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Progress, "micro_batch", lambda self, config, rows, L: min(rows, 5))
    model, run = _made(dtype="bfloat16", curriculum="auto", seqlen=512, eval_seqlens=[600])
    lengths = [task_of(run.config, n).input_seqlen for n, _ in run.config.curriculum]
    L, M = lengths[-1], task_of(run.config, 600).input_seqlen
    assert len(lengths) == 3
    train = {(n, length, True, True) for length in lengths for n in (5, 1)}
    probes = {(1, L, True, True), (4, L, True, True)}
    scored = {(n, length, True, False) for length in (L, M) for n in (5, 1)}
    full = {(n, length, False, False) for length in (L, M) for n in (4, 5)}
    assert _seen(model, run, monkeypatch) == train | probes | scored | full


@pytest.mark.parametrize("task", ["recall", "icl-functions"])
def test_model_and_generators_stay_as_they_are(task: str) -> None:
    model, run = _made(task=task, vocab_size=8 if task == "recall" else None)
    before = _tensors(model)
    _seed()
    drawn = _drawn()
    _seed()
    for attempt in passes(model, run):
        attempt()
    assert _drawn() == drawn
    assert all(torch.equal(a, b) for a, b in zip(before, _tensors(model), strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_a_model_that_cannot_be_copied_is_not_rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: nn.Module) -> nn.Module:
        raise TypeError("no copies")

    model, run = _made()
    monkeypatch.setattr(copy, "deepcopy", fail)
    assert [*passes(model, run)] == []


def test_only_a_gpu_is_rehearsed_for_and_only_own_operators(
    monkeypatch: pytest.MonkeyPatch, clean_registry: None
) -> None:
    @register_operator("mine")
    class Mine(nn.Module):
        def __init__(self, d_model: int, max_seqlen: int) -> None:
            super().__init__()

        def forward(self, u: Tensor) -> Tensor:
            return u

    asked: list[str] = []

    def told(model: nn.Module, run: Run) -> list[Callable[[], object]]:
        asked.append(run.config.operator)
        return []

    monkeypatch.setattr(rehearsal, "passes", told)
    rehearse(*_made())
    model, run = _made(operator="mine")
    rehearse(model, Run(run.config, "cuda:0", run.task))
    assert asked == []


def test_the_driver_is_built_for_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []

    class Config:
        @property
        def active(self) -> None:
            built.append(1)
            raise RuntimeError("no GPU, and no word about it")

    monkeypatch.setattr(rehearsal, "has_triton", lambda: True)
    monkeypatch.setattr(rehearsal, "interpreted", lambda: False)
    monkeypatch.setitem(sys.modules, "triton.runtime", SimpleNamespace(driver=Config()))
    monkeypatch.setitem(sys.modules, "triton", ModuleType("triton"))
    wake("cpu").join()
    assert not built
    wake("cuda:0").join()
    assert built


def test_what_is_wanted_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, run = _made()
    run = dataclasses.replace(run, device="cuda:0")
    compiled: list[tuple[list[int], int]] = []
    wanted: list[int] = []

    def fail() -> None:
        raise RuntimeError("a pass that fails")

    ahead = SimpleNamespace(
        noted=lambda: nullcontext(wanted),
        processes_for=lambda kernels, beside: kernels - beside,
        compile_all=lambda kernels, processes: compiled.append(([*kernels], processes)),
        mark=lambda what: tmp_path / hashlib.sha256(what.encode()).hexdigest(),
    )
    monkeypatch.setitem(sys.modules, "mechbench.ops.kernels.ahead", ahead)  # it needs Triton
    monkeypatch.setattr(rehearsal, "has_triton", lambda: True)
    monkeypatch.setattr(rehearsal, "interpreted", lambda: False)
    monkeypatch.setattr(rehearsal, "triton_version", lambda: (3, 6))
    monkeypatch.setattr(rehearsal, "callers_generators", lambda device: nullcontext())
    monkeypatch.setattr(
        rehearsal, "passes", lambda *_: [lambda: wanted.append(1), fail, lambda: wanted.append(2)]
    )
    for changes in ({}, {"seed": 1}, {"n_test": 11}):
        config = dataclasses.replace(run.config, **changes)
        rehearse(model, dataclasses.replace(run, config=config))
    assert compiled == [([1, 2], 1), ([1, 2, 1, 2], 3)]  # another seed needs no more

    def refuse(what: str) -> Path:
        raise RuntimeError("Failed to find C compiler")

    ahead.mark = refuse
    rehearse(model, run)
    assert len(compiled) == 2


def _forget_kernels() -> None:
    """Make this process forget what it compiled."""
    from triton.runtime.jit import JITFunction

    for name, module in [*sys.modules.items()]:
        if name.startswith("mechbench.ops."):
            for kernel in vars(module).values():
                if isinstance(kernel, JITFunction):
                    kernel.device_caches.clear()


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels that this process compiles itself, in an empty cache."""
    from triton import knobs

    missed: list[str] = []

    def listen(*, src: Any, cache_hit: bool, **rest: Any) -> None:
        if not cache_hit:
            missed.append(src.name)

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(knobs.compilation, "listener", listen)
    _forget_kernels()
    return missed


_CUDA = pytest.param("cuda", marks=_GPU)
_BOTH = pytest.mark.parametrize("device", [_CUDA])


@_BOTH
@pytest.mark.parametrize("operator", ["hyena", "attention"])
def test_after_a_rehearsal_nothing_is_compiled(
    device: str, operator: str, compiled: list[str], tmp_path: Path
) -> None:
    assert has_triton()
    assert not interpreted()
    import mechbench

    settings: dict[str, Any] = {
        "seqlen": 512, "vocab_size": 8, "d_model": 32, "budget_tokens": 1 << 19, "n_test": 64,
        "n_validation": 64, "validate_every": 5, "device": device, "quiet": True,
    }  # fmt: skip
    mechbench.run(operator, "recall", out=tmp_path / "runs", **settings)
    assert compiled == []
    (mark,) = (tmp_path / "cache").glob("mechbench-*")
    assert mark.is_file()


@_BOTH
def test_a_rehearsal_changes_nothing(
    device: str, compiled: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, run = _made(device)
    before = _tensors(model)
    _seed()
    drawn = _drawn()
    _seed()
    rehearse(model, run)
    assert _drawn() == drawn
    assert all(torch.equal(a, b) for a, b in zip(before, _tensors(model), strict=True))
    assert all(p.grad is None for p in model.parameters())


@_BOTH
def test_losses_are_the_same_without_a_rehearsal(
    device: str, compiled: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mechbench

    settings: dict[str, Any] = {
        "seqlen": 512, "vocab_size": 8, "d_model": 32, "budget_tokens": 1 << 19, "n_test": 64,
        "n_validation": 64, "validate_every": 5, "device": device, "quiet": True,
    }  # fmt: skip
    varying = {"tokens_per_s", "train_s", "seconds"}
    found = []
    for folder in ("with", "without"):
        _forget_kernels()
        result = mechbench.run("hyena", "recall", out=tmp_path / folder, **settings)
        rows = (result.path.parent / "metrics.csv").read_text().splitlines()
        keep = [i for i, name in enumerate(rows[0].split(",")) if name not in varying]
        found.append([[row.split(",")[i] for i in keep] for row in rows])
        found.append([result.data["fft_conv_backend"], result.data["evaluations"]])
        monkeypatch.setattr(train_cell, "rehearse", lambda model, run: None)
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "other"))
    assert found[:2] == found[2:]
