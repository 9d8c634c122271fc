from __future__ import annotations

import matplotlib
import pytest
from matplotlib.figure import Figure

from mechbench.catalogue.registry import OPERATORS
from mechbench.report import style
from mechbench.report.style import COLOURS, MARKERS, line_label, line_text, nth_style, tick


@pytest.mark.parametrize(("seqlen", "text"), [(131072, "128K"), (1024, "1K"), (1000, "1000")])
def test_ticks_are_short(seqlen: int, text: str) -> None:
    assert tick(seqlen) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5e6, "5 M"), (2e5, "200 K"), (2.5e9, "2.5 B"), (20, "20"), (0.5, "0.5"), (0, "0"),
        (12_345, "12.3 K"), (999_600, "1 M"), (123_456_789, "123 M"),
    ],
)  # fmt: skip
def test_amounts_are_short(value: float, text: str) -> None:
    assert style.amount(value) == text


def test_colour_and_marker_come_together_once() -> None:
    pairs = [nth_style(i) for i in range(len(COLOURS) * len(MARKERS) + 1)]
    assert len(set(pairs[:-1])) == len(pairs) - 1
    assert pairs[-1] == pairs[0]


def test_what_is_not_known_has_a_look_by_its_order() -> None:
    assert style.styles(["b", "a", "b"]) == {"b": nth_style(0), "a": nth_style(1)}


def test_an_operator_has_its_look_in_every_figure() -> None:
    hyena = nth_style(style.KNOWN.index("hyena"))
    for labels in (
        ["hyena"],
        ["a", "b", "hyena (order=3)", "attention"],
        ["b", "hyena, trained at 8"],
    ):
        looks = style.styles(labels)
        assert [look for label, look in looks.items() if label.startswith("hyena")] == [hyena]
        assert len(set(looks.values())) == len(labels)


def test_variants_side_by_side_are_told_apart_from_all_others() -> None:
    looks = style.styles(["hyena (order=2)", "hyena (order=3)", "attention", "mine"])
    assert looks["attention"] == nth_style(0)
    colours = [
        colour
        for colour, _ in style.styles(["a", "attention", "mamba", "eager-attention"]).values()
    ]
    assert colours[0] not in colours[1:], "mamba has attention's colour, and a no other's"
    assert [looks[label] for label in looks if label != "attention"] == list(
        map(nth_style, (1, 2, 3))
    )


def test_known_operators_are_those_that_come_with_it() -> None:
    assert len(set(style.KNOWN)) == len(style.KNOWN)
    assert set(style.KNOWN) <= set(OPERATORS.names())


@pytest.mark.parametrize(
    ("n", "places"),
    [(1, [0.0]), (2, [-1.0, 1.0]), (3, [-2.0, 0.0, 2.0]), (5, [-3, -1.5, 0, 1.5, 3])],
)
def test_lines_stand_side_by_side_around_their_place(n: int, places: list[float]) -> None:
    assert style.side_by_side(n, 2.0, 6.0) == places


def test_a_logarithmic_axis_has_ticks_at_1_2_and_5() -> None:
    axis = Figure().add_subplot()
    axis.set_yscale("log")
    axis.set_ylim(0.9, 21)
    style.tick_powers(axis.yaxis, lambda value: f"{value:g} M")
    ticks = [tick for tick in axis.get_yticks() if 0.9 <= tick <= 21]
    texts = axis.yaxis.get_major_formatter().format_ticks(ticks)
    assert texts == ["1 M", "2 M", "5 M", "10 M", "20 M"]
    assert not len(axis.get_yticks(minor=True))


@pytest.mark.parametrize("text", ["_hidden", "plain", "__init__", ""])
def test_a_label_gives_its_text_back_and_is_in_the_legend(text: str) -> None:
    assert line_text(line_label(text)) == text
    assert not line_label(text).startswith("_")


@pytest.mark.parametrize("spines", [True, False])
def test_a_users_settings_neither_matter_nor_change(spines: bool) -> None:
    with matplotlib.rc_context({"font.family": ["serif"], "lines.linewidth": 9.0}):
        with style.applied(spines):
            assert matplotlib.rcParams["font.family"] == [style.FONT]
            assert matplotlib.rcParams["lines.linewidth"] == 1.5
            assert Figure().add_subplot().spines["top"].get_visible() == spines
        assert matplotlib.rcParams["font.family"] == ["serif"]
