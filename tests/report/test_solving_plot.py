from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mechbench.report import solving_plot as module
from mechbench.report.aggregate import aggregate
from mechbench.report.collect import collect
from mechbench.report.solving_plot import draw_solving

Store = Callable[..., Path]


def test_a_panel_where_anything_is_solved(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seqlen in (64, 128):
        store({seqlen: 0.3}, seqlen=seqlen, operator="attention")
        store({seqlen: 1.0}, seqlen=seqlen, solved=seqlen == 128)
        store({seqlen: 1.0}, seqlen=seqlen, operator="ahead", causal=False, solved=True)
    store({64: 1.0}, vocab_size=30, solved=True)
    sections = aggregate(collect([tmp_path / "runs"])[0])
    drawn: dict[str, list[str]] = {}
    monkeypatch.setattr(
        module, "plot_solve_curves",
        lambda panels, stem: drawn.update({k: sorted(v) for k, v in panels.items()}) or [stem],
    )  # fmt: skip
    assert draw_solving(sections, tmp_path / "s") == [tmp_path / "s"]
    assert drawn == {
        "recall, vocab_size 20, d_model 64, 2 layers, trained at 128": ["attention", "hyena"],
        "recall, vocab_size 30, d_model 64, 2 layers, trained at 64": ["hyena"],
    }


def test_nothing_is_drawn_of_nothing_solved(store: Store, tmp_path: Path) -> None:
    store()
    assert draw_solving(aggregate(collect([tmp_path / "runs"])[0]), tmp_path / "s") == []
    assert not (tmp_path / "s.png").exists()
    store(seed=1, solved=True)
    files = draw_solving(aggregate(collect([tmp_path / "runs"])[0]), tmp_path / "s")
    assert [path.name for path in files] == ["s.png", "s.svg"]
    assert all(path.stat().st_size > 1000 for path in files)
