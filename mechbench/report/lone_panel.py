"""Accuracies at one length alone: a row for each label, as an axis of one value would hide them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mechbench.report import style
from mechbench.report.aggregate import Section
from mechbench.report.style import Styles, line_text

Reference = tuple[str, str, Any, Mapping[int, float]]  # name, colour, dashes, accuracy by length


def lone_panel(
    axis: Any,
    section: Section,
    styles: Styles,
    names: Mapping[str, str],
    references: Sequence[Reference],
) -> None:
    """Draw the accuracies of a section of one length from left to right, the best row on top.

    Args:
        axis: of the panel; title and label of its x axis are not touched.
        section: with one `eval_seqlen`.
        styles: colour and marker of each label.
        names: text beside the row of each label.
        references: what no operator is needed for, in rows below, each with a line of its own.
    """
    (length,) = section.lengths
    texts, colours = [], []
    for row, (label, (point,)) in enumerate(section.curves.items()):
        colour, marker = styles[label]
        texts.append(line_text(names[label]))
        colours.append(colour)
        if point.accuracy is None:
            axis.plot([0], [row], "x", color=colour, markersize=style.CROSS, clip_on=False)
            texts[-1] += ": failed"
            continue
        low, high = point.ci_low or 0.0, point.ci_high or 0.0
        sure = style.SURE if point.causal is not False else style.UNSURE
        axis.plot(
            [low, high], [row, row], color=colour, linestyle=sure, linewidth=style.CURVE,
            marker="|", markersize=style.CROSS,
        )  # fmt: skip
        axis.plot([point.accuracy], [row], color=colour, marker=marker, **style.DOTS)
    for name, colour, dashes, reached in references:
        if length in reached:
            row = len(texts)
            texts.append(name)
            colours.append(colour)
            axis.axvline(
                reached[length], color=colour, linestyle=dashes, linewidth=style.REFERENCE, zorder=1
            )
            axis.plot([reached[length]], [row], "|", color=colour, markersize=style.CROSS)
    name_rows(axis, texts, colours)
    axis.set_xlim(0, style.HIGHEST)
    axis.set_xticks(*style.PERCENTS)
    style.grid(axis)


def name_rows(axis: Any, texts: Sequence[str], colours: Sequence[str]) -> None:
    """Write the names of rows beside a panel, the first on top."""
    axis.set_ylim(len(texts) - 0.5, -0.5)
    axis.set_yticks(range(len(texts)), texts, fontsize=style.LABEL)
    axis.yaxis.tick_right()
    axis.tick_params(axis="y", length=0)
    for text, colour in zip(axis.get_yticklabels(), colours, strict=True):
        text.set_color(colour)
        if "\n" in text.get_text():  # two lines in the height of one
            text.set(fontsize=style.SMALLER, linespacing=0.95)
