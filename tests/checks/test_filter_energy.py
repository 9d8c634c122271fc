from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mechbench
from mechbench.checks import filter_energy as module
from mechbench.checks.filter_energy import draw_energies
from mechbench.checks.inspection import trained
from mechbench.errors import ConfigError, ResultError
from mechbench.report.energy_plot import energy_by_lag

Panels = dict[str, Sequence[np.ndarray[Any, Any]]]


def run(out: Path, operator: str = "hyena", **settings: object) -> Path:
    """Train for a few steps; return the folder."""
    usual: dict[str, object] = {
        "task": "recall",
        "seqlen": 16,
        "vocab_size": 8,
        "task_options": {"min_distance": 12},
        "d_model": 8,
        "budget_tokens": 3000,
        "n_validation": 16,
        "n_test": 16,
        "device": "cpu",
        "quiet": True,
    }
    result = mechbench.run(operator, out=out, **usual | settings)  # type: ignore[arg-type]
    return result.path.parent


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return runs: two seeds with other rates and no shift, then one with a shift."""
    out = tmp_path_factory.mktemp("runs")
    return [
        run(out, lr=1e-3, operator_options={"window_shift": 0.0}),
        run(out, lr=2e-3, seed=1, operator_options={"window_shift": 0.0}),
        run(out, operator_options={"window_shift": 1.0}),
    ]


@pytest.fixture
def caught(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Return what would have been drawn."""
    calls: list[tuple[Any, ...]] = []

    def draw(panels: Panels, seqlen: int, title: str, stem: Path, asked_from: int) -> list[Path]:
        calls.append((panels, seqlen, title, stem, asked_from))
        return []

    monkeypatch.setattr(module, "plot_energies", draw)
    return calls


def test_seeds_are_taken_together_and_options_told_apart(
    stored: list[Path], caught: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    draw_energies([stored[2], *stored[:2]], tmp_path)
    panels, seqlen, title, stem, asked_from = caught[0]
    assert list(panels) == ["hyena (window_shift=0)", "hyena (window_shift=1)"]
    assert (seqlen, asked_from) == (18, 12)  # a model reads the query, too
    assert title == "Learned filters, recall, min_distance=12 at 16"
    assert stem == tmp_path / "filter_energy"
    assert [len(layers) for layers in panels.values()] == [2, 2]
    assert [layer.shape for layer in panels["hyena (window_shift=0)"]] == 2 * [(16, 18)]
    for layer in range(2):
        operators = [trained(folder, layer=layer).module for folder in stored[:2]]
        taps = [operator.filter(18).detach()[0].numpy() for operator in operators]
        expected = np.concatenate([energy_by_lag(h) for h in taps])
        assert panels["hyena (window_shift=0)"][layer] == pytest.approx(expected)


def test_files_are_written_and_the_runs_left_as_they_are(
    stored: list[Path], tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for folder in stored for path in folder.iterdir()}
    paths = draw_energies(stored, tmp_path / "new")
    assert [path.name for path in paths] == ["filter_energy.png", "filter_energy.svg"]
    assert all(path.stat().st_size > 1000 for path in paths)
    assert {path: path.read_bytes() for folder in stored for path in folder.iterdir()} == before


def test_runs_of_several_lengths_and_operators_without_filters_are_one_line(
    stored: list[Path], tmp_path: Path
) -> None:
    longer = run(tmp_path / "runs", seqlen=32)
    with pytest.raises(ConfigError, match=r"at 32, .* at 16: expected runs of one task at one len"):
        draw_energies([stored[0], longer], tmp_path / "plots")
    attention = run(tmp_path / "runs", "attention")
    with pytest.raises(ConfigError, match="operator 'attention' has no filters to draw"):
        draw_energies([attention], tmp_path / "plots")
    with pytest.raises(ResultError, match="does not exist"):
        draw_energies([tmp_path / "nowhere"], tmp_path / "plots")
    assert not (tmp_path / "plots").exists()
