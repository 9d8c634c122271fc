from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_results import board_rows, made_result

from mechbench.report.results_csv import write_rows
from mechbench.report.rows import Row
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


@pytest.fixture
def make() -> Make:
    return made_result


@pytest.fixture
def rows() -> list[Row]:
    """Return two operators, lengths, vocabularies and seeds; one diverged, one was not run."""
    return board_rows()


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
