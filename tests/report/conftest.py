from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_results import board_rows, made_result

from mechbench.record.config import Config
from mechbench.record.results import wilson_interval
from mechbench.report.rows import Row

CONFIG = frozenset(Config.__dataclass_fields__)
Store = Callable[..., Path]


def evaluation(seqlen: int, accuracy: float, n: int) -> dict[str, Any]:
    correct = round(accuracy * n)
    low, high = wilson_interval(correct, n)
    windows = [w for w in (16, 32, 64, 128, 256) if w < seqlen + 2]
    context = {str(w): min(1.0, 0.3 + 0.1 * i + 4 / seqlen) for i, w in enumerate(windows)}
    return {
        "seqlen": seqlen,
        "n": n,
        "correct": correct,
        "accuracy": correct / n,
        "ci_low": low,
        "ci_high": high,
        "dense_n": 10 * n,
        "dense_accuracy": accuracy,
        "shortcuts": {"last value": 0.12, "most frequent value": 0.2},
        "required_context": {**context, str(seqlen + 2): 1.0},
    }


def _store(
    root: Path,
    accuracies: dict[int, float] | None = None,
    *,
    operator: str = "hyena",
    seqlen: int = 64,
    status: str = "ok",
    n: int = 1000,
    date: str = "2026-01-01T00:00:00Z",
    **changes: Any,
) -> Path:
    """Write one result, scored at the lengths of `accuracies`; return its path."""
    accuracies = {seqlen: 0.9} if accuracies is None else accuracies
    settings: dict[str, Any] = {
        "budget_tokens": 1000,
        "eval_seqlens": tuple(sorted({seqlen, *accuracies})),
    }
    settings |= {key: value for key, value in changes.items() if key in CONFIG}
    config = Config(operator, settings.pop("task", "recall"), seqlen=seqlen, **settings)
    data = {
        "schema_version": 1,
        "cell_id": config.cell_id,
        "status": status,
        "reason": None if status == "ok" else "the loss | is\nnot finite",
        "config": config.to_dict(),
        "chance": 0.1,
        "evaluations": [evaluation(length, a, n) for length, a in sorted(accuracies.items())],
        "solved": False,
        "causal": True,
        "parameters": 1234,
        "steps": 100,
        "train_tokens": 5000,
        "flops_per_token": 1e6,
        "tokens_per_s": 2e5,
        "peak_memory_mib": 64.0,
        "seconds": {"train": 1.5, "evaluate": 0.5, "total": 2.0},
        "provenance": {"device": "CPU, 1 threads", "date": date},
    }
    data |= {key: value for key, value in changes.items() if key not in CONFIG}
    path = root / config.cell_id / "result.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(data))
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Write one made-up result below tmp_path / "runs"."""

    def write(*args: Any, folder: str = "runs", **kwargs: Any) -> Path:
        return _store(tmp_path / folder, *args, **kwargs)

    return write


@pytest.fixture
def make() -> Callable[..., dict[str, Any]]:
    return made_result


@pytest.fixture
def rows() -> list[Row]:
    """Return two operators, lengths, vocabularies and seeds; one diverged, one was not run."""
    return board_rows()
