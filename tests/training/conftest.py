"""A small run of the operator "mine", whose steps a test can watch and disturb."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mechbench
from mechbench.catalogue.registry import register_operator
from mechbench.record.results import Result
from mechbench.training import train_cell

L, V, B, STEPS = 16, 8, 8, 30
FILES = ["checkpoint.pt", "config.json", "metrics.csv", "result.json"]
Hook = Callable[[int, Tensor], object]


class Operator:
    """What the operator "mine" does in training; `hook` sees the number of the step."""

    def __init__(self) -> None:
        self.hook: Hook = lambda step, u: None
        self.passes, self.probed = 0, False
        outer = self

        @register_operator("mine")
        class Mine(nn.Module):
            def __init__(self, d_model: int, max_seqlen: int) -> None:
                super().__init__()
                self.mix = nn.Linear(d_model, d_model)

            def forward(self, u: Tensor) -> Tensor:
                y: Tensor = self.mix(u).cumsum(1)
                if self.training and u.device.type != "meta" and not outer.probed:
                    outer.passes += 1
                    changed = outer.hook(outer.passes, u)
                    y = changed * y if isinstance(changed, float) else y
                return y / torch.arange(1, u.shape[1] + 1, device=u.device)[:, None]

    def once(self, step: int, act: Callable[[], object]) -> None:
        """Act at a step, the first time that it comes."""
        done = []

        def hook(number: int, u: Tensor) -> object:
            if number == step and not done:
                done.append(number)
                return act()
            return None

        self.hook, self.passes = hook, 0


@pytest.fixture
def mine(clean_registry: None, monkeypatch: pytest.MonkeyPatch) -> Operator:
    """Return an operator that counts its steps, and not how often the gate looks at it."""
    operator = Operator()

    def unseen(probe: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            operator.probed = True
            try:
                return probe(*args)
            finally:
                operator.probed = False

        return run

    for name in ("before", "after"):
        monkeypatch.setattr(train_cell, name, unseen(getattr(train_cell, name)))
    return operator


Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(operator: str = "mine", folder: str = "runs", **changes: Any) -> Result:
        settings: dict[str, Any] = {
            "seqlen": L, "vocab_size": V, "d_model": 16, "n_layers": 1, "batch_size": B,
            "budget_tokens": STEPS * B * (L + 2), "n_test": 64, "n_validation": 64,
            "validate_every": 10, "device": "cpu", "quiet": True, "out": tmp_path / folder,
        }  # fmt: skip
        return mechbench.run(operator, "recall", **{**settings, **changes})

    return run


def the_folder(tmp_path: Path, folder: str = "runs") -> Path:
    (found,) = (tmp_path / folder).iterdir()
    return found


def rows(folder: Path) -> list[list[str]]:
    """Return metrics.csv without what a clock measures."""
    with (folder / "metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    return [[v for k, v in row.items() if k not in ("tokens_per_s", "train_s")] for row in table]


def outcome(result: Result) -> dict[str, Any]:
    """Return what must not depend on how often a run was interrupted."""
    varying = {"seconds", "tokens_per_s", "peak_memory_mib", "provenance", "fft_conv_backend",
        "kernels"}  # fmt: skip
    kept = {k: v for k, v in result.data.items() if k not in varying}
    return kept | {"rows": rows(result.path.parent)}


def fall_short(step: int, u: Tensor) -> None:
    raise torch.cuda.OutOfMemoryError("CUDA out of memory.\n Tried to allocate 2 GiB")
