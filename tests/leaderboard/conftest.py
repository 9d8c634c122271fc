from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mechbench.leaderboard.store import write_rows
from mechbench.record.config import Config
from mechbench.record.results import wilson_interval
from mechbench.report.collect import Row, rows_of
from mechbench.training.cell import run

Make = Callable[..., dict[str, Any]]
# A cell that trains in a second: 20 steps, scored at two lengths.
TINY = {
    "seqlen": 16, "vocab_size": 10, "d_model": 16, "n_layers": 1, "n_test": 256,
    "n_validation": 128, "batch_size": 16, "budget_tokens": 16 * 18 * 20, "validate_every": 5,
}  # fmt: skip
SUITE = """title = "T"
question = "Why?"
seeds = [0, 1]
tasks = ["recall"]
operators = ["attention", "linear-attention"]
[settings]
seqlen = 16
vocab_size = 10
d_model = 16
n_layers = 1
n_test = 256
n_validation = 128
batch_size = 16
budget_tokens = 5760
validate_every = 5
"""


def train(out: Path, operator: str = "attention", **settings: Any) -> dict[str, Any]:
    """Return the result of a tiny cell, really trained on a CPU."""
    given = {**TINY, "eval_seqlens": [24], "curriculum": "none", **settings}
    return dict(run(operator, "recall", device="cpu", out=out, quiet=True, **given).data)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return train(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def genuine(trained: dict[str, Any]) -> dict[str, Any]:
    """Return a genuine result, one's own to change."""
    return dict(copy.deepcopy(trained))


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(SUITE)
    return path


def _evaluation(seqlen: int, accuracy: float, n: int) -> dict[str, Any]:
    correct = round(accuracy * n)
    low, high = wilson_interval(correct, n)
    return {
        "seqlen": seqlen, "n": n, "correct": correct, "accuracy": correct / n, "ci_low": low,
        "ci_high": high, "dense_n": n, "dense_accuracy": accuracy,
        "shortcuts": {"last value": 0.12}, "required_context": {"16": 0.5, str(seqlen + 2): 0.98},
    }  # fmt: skip


def _result(
    accuracies: dict[int, float] | None = None, status: str = "ok", **changes: Any
) -> dict[str, Any]:
    """Return a made-up result without a fault, scored at the lengths of `accuracies`."""
    settings: dict[str, Any] = {
        "operator": "hyena", "task": "recall", "seqlen": 64, "budget_tokens": 10_000,
        "n_test": 1000, "task_options": {"min_distance": 0}, **changes,
    }  # fmt: skip
    accuracies = {settings["seqlen"]: 0.9} if accuracies is None else accuracies
    settings["eval_seqlens"] = tuple(sorted({settings["seqlen"], *accuracies}))
    config = Config(**settings)
    return {
        "schema_version": 1, "cell_id": config.cell_id, "status": status,
        "reason": None if status == "ok" else "it went | wrong", "config": config.to_dict(),
        "chance": 0.1, "solved": False, "causal": True, "stop": "budget",
        "evaluations": [_evaluation(n, a, 1000) for n, a in sorted(accuracies.items())],
        "validation_accuracy": 0.5, "parameters": 1234, "steps": 10, "train_tokens": 9000,
        "excluded_examples": 0, "micro_batch_size": 8, "flops_per_token": 1.5e6,
        "tokens_per_s": 2e5, "peak_memory_mib": 64.5, "fft_conv_backend": None,
        "seconds": {"train": 1.5, "evaluate": 0.1, "total": 0.1 + 0.2},
        "provenance": {
            "mechbench": "0.1.0", "torch": "2.11", "python": "3.12", "platform": "Linux x86_64",
            "device": "CPU, 1 threads", "git_commit": None, "date": "2026-01-02T03:04:05Z",
            "command": "mechbench sweep x.toml",
        },
    }  # fmt: skip


@pytest.fixture
def make() -> Make:
    return _result


@pytest.fixture
def rows() -> list[Row]:
    """Two operators, two lengths, two vocabularies, two seeds; one diverged, one not run."""
    found: list[Row] = []
    for operator, base in (("hyena", 0.9), ("attention", 0.7)):
        for seqlen in (64, 128):
            for vocab_size in (10, 30):
                for seed in (0, 1):
                    status = "ok"
                    if (operator, seqlen, seed) == ("attention", 128, 1):
                        status = "diverged" if vocab_size == 10 else "not-run"
                    data = _result(
                        {seqlen: base + 0.01 * seed} if status == "ok" else {}, status,
                        operator=operator, seqlen=seqlen, vocab_size=vocab_size, seed=seed,
                    )  # fmt: skip
                    if status == "not-run":
                        data["provenance"] = {}
                    found += rows_of(data)
    return found


@pytest.fixture
def save(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """Write a result below tmp_path / "runs"."""

    def write(data: dict[str, Any]) -> Path:
        path = tmp_path / "runs" / data["cell_id"] / "result.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data))
        return path

    return write


@pytest.fixture
def folder(rows: list[Row], tmp_path: Path) -> Path:
    folder = tmp_path / "boards" / "mine"
    folder.mkdir(parents=True)
    write_rows(folder / "results.csv", rows)
    return folder
