from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from mechbench.record.outcome import CellOutcome
from mechbench.report import tokens_plot
from mechbench.report.aggregate import Section, aggregate
from mechbench.report.collect import collect
from mechbench.report.style import styles
from mechbench.report.tokens_plot import plot_tokens, reached

Store = Callable[..., Path]


def told(tokens: int, solved: bool = True) -> dict[str, Any]:
    kind = "solved" if solved else "censored"
    return {
        "outcome": CellOutcome(kind, tokens).to_dict(), "train_tokens": tokens, "solved": solved,
    }  # fmt: skip


@pytest.fixture
def section(store: Store, tmp_path: Path) -> Section:
    """hyena solves 64, and 128 with one seed of three; attention only 64, with one of one."""
    for seed, tokens in enumerate((300, 200, 400)):
        store({64: 1.0}, seed=seed, **told(tokens))
        store({128: 0.5}, seqlen=128, seed=seed, **told(900, solved=seed == 0))
    store({64: 1.0}, operator="attention", **told(700))
    (found,) = aggregate(collect([tmp_path / "runs"])[0])
    return found


def test_the_median_or_what_did_not_suffice(section: Section) -> None:
    short, long = section.curves["hyena"]
    assert reached(short) == (300, True)
    assert reached(long) == (900, False)


def test_only_what_is_solved_is_joined_and_others_are_hollow(section: Section) -> None:
    axis = Figure().add_subplot()
    tokens_plot._panel(axis, section, styles(section.curves), "")
    legend = axis.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "attention", "hyena", "hollow: not solved by then", "thin: seeds that solved it",
    ]  # fmt: skip
    (hyena,) = [line for line in axis.get_lines() if line.get_label() == "hyena"]
    first, last = hyena.get_ydata()
    assert first == 300
    assert math.isnan(last)
    hollow = [line for line in axis.get_lines() if line.get_markerfacecolor() == "white"]
    assert [list(line.get_ydata()) for line in hollow if len(line.get_ydata())] == [[900]]
    assert [200, 400] in [list(line.get_ydata()) for line in axis.get_lines()]
    low, high = axis.get_ylim()
    assert low < 200 < 900 < high
    assert axis.get_yscale() == "log"


def test_one_length_is_drawn_in_rows(store: Store, tmp_path: Path) -> None:
    store({64: 1.0}, **told(300))
    store({64: 0.1}, operator="attention", **told(900, solved=False))
    (section,) = aggregate(collect([tmp_path / "runs"])[0])
    axis = Figure().add_subplot()
    tokens_plot._panel(axis, section, styles(section.curves), "")
    rows = [text.get_text() for text in axis.get_yticklabels()]
    assert rows == ["hyena", "attention", "hollow: not solved by then"]
    assert axis.get_xlim() == pytest.approx((300 / (10 / 3) ** 0.5, 900 * (10 / 3) ** 0.5))
    assert axis.get_xscale() == "log"
    assert axis.get_xlabel() == "tokens to solve, median of seeds, at length 64"


def test_nothing_is_drawn_of_what_nobody_solves_or_trained(store: Store, tmp_path: Path) -> None:
    store({64: 0.1}, **told(900, solved=False))
    sections = aggregate(collect([tmp_path / "runs"])[0])
    assert plot_tokens(sections, tmp_path / "none") == []
    store({64: 1.0, 128: 1.0}, operator="attention", **told(900))
    sections = aggregate(collect([tmp_path / "runs"])[0])
    paths = plot_tokens(sections, tmp_path / "some")
    assert [path.name for path in paths] == ["some.png", "some.svg"]
    trained = [tokens_plot._trained(found, other_axis=False) for found in sections]
    assert {point.eval_seqlen for found in trained for point in found.points} == {64}
    turned = [tokens_plot._trained(found, other_axis=True) for found in sections]
    assert not any(found.points for found in turned), "which was scored at 128 cannot be told"


def test_what_looks_ahead_is_left_out(store: Store, tmp_path: Path) -> None:
    store({64: 1.0}, **told(300))
    store({64: 1.0}, operator="ahead", causal=False, allow_noncausal=True, **told(200))
    (section,) = aggregate(collect([tmp_path / "runs"])[0])
    shown = tokens_plot._trained(section, other_axis=False)
    assert [point.label for point in shown.points] == ["hyena"]
