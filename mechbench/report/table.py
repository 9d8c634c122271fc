"""Sections as table.csv (tidy, everything) and table.md (for people). No torch."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import Any

from mechbench.record.config import canonical_json
from mechbench.report.aggregate import Point, Section
from mechbench.report.cost_table import cost_tables
from mechbench.report.escape import csv_text, markdown
from mechbench.report.held import HELD, held_up_to, trained_at
from mechbench.report.overview import overview_lines, scaled
from mechbench.report.rows import NAN, OUTCOMES
from mechbench.report.solving_table import flat, solving_lines, verdicts

WINDOWS = (16, 128)  # of the short-sighted oracle: within a short filter's reach, and a long one's
_LEGEND = (
    "Accuracy in percent on the test examples [95% interval], n = seeds: a bootstrap over seeds "
    "and examples, the Wilson interval of a single seed. **Bold**: told from every other of its "
    "column by tests at 5%, corrected for their number; where they cannot tell, nothing is bold. "
    "Where anything is solved, they are log-rank tests of the tokens to solve, elsewhere paired "
    "tests of accuracies over seeds and examples. Not ranked: what looks ahead (non-causal), and "
    "what failed with any seed."
)
_SOLVING = (
    "Solved: validation accuracy at the mark twice in a row, k of n seeds [Wilson interval]. "
    "Tokens [95% interval, which takes four seeds], FLOPs and seconds of training to solve: the "
    "median (Kaplan and Meier), "
    "or > what at least half of the seeds came to, where fewer are solved. Of seeds not solved: "
    "mean test accuracy, and whether validation accuracy was rising over the last half of their "
    "tokens, flat within its noise, or unclear. A seed that diverged counts as unsolved. Log-rank "
    "tests, with Holm's correction, are approximate: they tell two equal operators apart in up to "
    "10 of 100 cases of three seeds each, in 7 of five."
)

_SCALED = (
    "Settings whose chance differs, side by side: accuracy in percent, and scaled, that is "
    "(accuracy - chance) / (1 - chance): 0 is a guess, 100 is all right."
)
_TUNING = (
    "The learning rate is chosen with seeds that are not reported: by the share solved, then the "
    "tokens to solve, then validation accuracy. Trials: cells trained for that, by one rule for "
    "every label: each rate with one seed and, where a suite has more such seeds, the rates that "
    "solve soonest with the others. (edge): the lowest or highest rate tried was chosen, so the "
    "best may lie outside."
)


def to_csv(sections: Sequence[Section]) -> str:
    """Return one line a section, label and evaluation length, with all that is known of it.

    The column `n_nan` is there if any point has outputs that are not finite, those of tuning if
    learning rates were chosen by cells that are not reported.
    """
    lines = [
        (section, point)
        for section in sections
        for point in sorted(section.points, key=lambda p: (p.label, p.eval_seqlen))
    ]
    nan = any(NAN in point.statuses for section in sections for point in section.points)
    outcomes = [outcome for outcome in OUTCOMES if nan or outcome != NAN]
    found = [_flat(section, point, outcomes) for section, point in lines]
    if not any(section.crossing for section in sections):
        found = [{k: v for k, v in line.items() if k != "held_up_to"} for line in found]
    if not any(map(tuned, sections)):
        absent = ("tuning_trials", "tuning_tokens", "lr_at_edge")
        found = [{k: v for k, v in line.items() if k not in absent} for line in found]
    return csv_text(found)


def tuned(section: Section) -> bool:
    """Return whether any label's learning rate was chosen by cells that are not reported."""
    return any(point.cost.tuning_trials for point in section.points)


def _flat(section: Section, point: Point, outcomes: Sequence[str]) -> dict[str, Any]:
    length = point.eval_seqlen
    shortcut = section.best_shortcut(length) or (None, None)
    context = section.required_context[length]
    own = {f.name: getattr(point, f.name) for f in dataclasses.fields(point)}
    del own["cost"], own["statuses"], own["counts"], own["solving"]
    return {
        **dataclasses.asdict(section.setting),
        **own,
        "ranked": point.ranked,
        "best": point.label == section.best(length),
        "held_up_to": held_up_to(section.curves[point.label]),
        **{f"n_{s.replace('-', '_')}": point.statuses.get(s, 0) for s in outcomes},
        "chance": section.chance[length],
        "scaled_accuracy": scaled(point.accuracy, section.chance[length]),
        "best_shortcut": shortcut[0],
        "best_shortcut_accuracy": shortcut[1],
        "required_context": canonical_json(context),
        **dataclasses.asdict(point.cost),
        **flat(point.solving),
    }


def to_markdown(
    sections: Sequence[Section],
    warnings: Sequence[str],
    heading: str = "Accuracy versus sequence length",
) -> str:
    """Return a heading, and for each section tables of accuracy, solving and cost, and notes."""
    blocks = [f"# {markdown(heading)}", _LEGEND, _SOLVING]
    if any(map(tuned, sections)):
        blocks.append(_TUNING)
    if warnings:
        blocks += ["Warnings:", _bullets(map(markdown, warnings))]
    if overview := overview_lines(sections):
        cells = [[markdown(text) for text in line] for line in overview]
        blocks += ["## Overview", _SCALED, markdown_table(cells)]
    for section in sections:
        blocks += [f"## {markdown(section.title)}", _accuracies(section), *_solved(section)]
        blocks += _costs(section)
        if section.differences:
            blocks += ["Not the same for all:", _bullets(section.differences)]
        if section.failures:
            blocks += ["Failed:", _bullets(map(markdown, section.failures))]
    return "\n\n".join(blocks) + "\n"


def _solved(section: Section) -> list[str]:
    lines, words = solving_lines(section, _names(section)), verdicts(section)
    return [*([markdown_table(lines)] if lines else []), *([_bullets(words)] if words else [])]


def row_label(points: Iterable[Point]) -> str:
    """Return the name of a row or line, marked if it looks ahead."""
    shown = list(points)
    mark = " (non-causal)" if any(p.causal is False for p in shown) else ""
    return shown[0].label + mark


def _accuracies(section: Section) -> str:
    lengths = section.lengths
    trained = ", " + (trained_at(section) if section.crossing else "each trained at that length")
    held = [f"above {HELD:.0%} up to"] if section.crossing else []
    lines = [[f"accuracy at length{trained}", *map(str, lengths), *held]]
    best = {length: section.best(length) for length in lengths}
    for label, points in section.curves.items():
        at = {p.eval_seqlen: p for p in points}
        cells = [_cell(at[n], label == best[n]) if n in at else "-" for n in lengths]
        far = [str(held_up_to(points) or "-")] if held else []
        lines.append([markdown(row_label(points)), *cells, *far])
    lines.append(["chance", *(_percent(section.chance[n]) for n in lengths)])
    shortcuts = [section.best_shortcut(n) for n in lengths]
    names = {s[0] for s in shortcuts if s is not None}
    if names:
        one = len(names) == 1
        name = f"best shortcut ({markdown(names.pop())})" if one else "best shortcut"
        each = [
            "-" if s is None else _percent(s[1]) + ("" if one else f" ({markdown(s[0])})")
            for s in shortcuts
        ]
        lines.append([name, *each])
    for window in WINDOWS:
        reached = [section.required_context[n].get(window) for n in lengths]
        if any(accuracy is not None for accuracy in reached):
            lines.append([f"oracle, last {window} tokens", *map(_percent, reached)])
    return markdown_table([[*line, *[""] * (len(lines[0]) - len(line))] for line in lines])


def _cell(point: Point, bold: bool) -> str:
    if point.accuracy is None:
        return point.failures
    mean = _percent(point.accuracy)
    text = f"**{mean}**" if bold else mean
    text += f" [{_percent(point.ci_low)}, {_percent(point.ci_high)}] n={point.n_seeds}"
    return f"{text}; {point.failures}" if point.failures else text


def _costs(section: Section) -> list[str]:
    tables, same = cost_tables(section, _names(section))
    said = [f"The same in all rows below: {'; '.join(same)}."] if same else []
    return [*said, *map(markdown_table, tables)]


def _names(section: Section) -> dict[str, str]:
    """Return the labels as Markdown, marked where they look ahead."""
    return {label: markdown(row_label(points)) for label, points in section.curves.items()}


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, its first line the heading; all but the first column are numbers.

    Cells are Markdown; text from files goes through `mechbench.report.escape.markdown` first.
    """
    rule = ["---", *["---:"] * (len(lines[0]) - 1)]
    cells = [lines[0], rule, *lines[1:]]
    return "\n".join(f"| {' | '.join(map(_text, line))} |" for line in cells)


def _text(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(text.split()))


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
