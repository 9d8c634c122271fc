from __future__ import annotations

from pathlib import Path

from mechbench.leaderboard.heatmap import draw_heatmap
from mechbench.report.aggregate import aggregate
from mechbench.report.collect import Row


def test_a_panel_an_operator_with_its_numbers(rows: list[Row], tmp_path: Path) -> None:
    png, svg = draw_heatmap(aggregate(rows), tmp_path / "heatmap")
    assert png.read_bytes().startswith(b"\x89PNG")
    text = svg.read_text()
    for shown in (
        "hyena",
        "attention",
        "vocab_size",
        "sequence length",
        "<!-- 90 -->",
        "<!-- 70 -->",
    ):
        assert shown in text
