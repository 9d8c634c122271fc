from __future__ import annotations

from pathlib import Path

import pytest

from bench.records import record
from mechbench.bench.plot import curve, plot_times


def test_times_are_for_the_same_tokens() -> None:
    made = record()
    assert curve(made, "hyena")[8192] == pytest.approx(8 * 131_072 / 8192)


def test_files_name_lines_crossing_and_loss_and_are_the_same_again(tmp_path: Path) -> None:
    png, svg = plot_times(record(), tmp_path / "bench")
    text = svg.read_text()
    for says in (
        "hyena, as fast at 4K",
        "attention",
        "at the top: out of memory",
        "fft_conv/torch",
    ):
        assert says in text
    before = png.read_bytes(), svg.read_bytes()
    plot_times(record(), tmp_path / "bench")
    assert (png.read_bytes(), svg.read_bytes()) == before


def test_nothing_measured_is_an_empty_plot(tmp_path: Path) -> None:
    made = record()
    made.readings = [reading for reading in made.readings if reading.measured is None]
    assert len(plot_times(made, tmp_path / "bench")) == 2
