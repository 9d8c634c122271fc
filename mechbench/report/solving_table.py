"""The table of what is solved, and in words which label solves soonest. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from mechbench.report.aggregate import Point, Section
from mechbench.report.escape import markdown
from mechbench.report.leaders import Verdict
from mechbench.report.solve_curve import median_tokens
from mechbench.report.solving import TRENDS, Solving
from mechbench.report.style import amount
from mechbench.report.survival import Outcome, half_followed

HEAD = (
    "solving, median of seeds", "trained at", "solved", "tokens to solve", "FLOPs to solve",
    "seconds to solve", "accuracy of the unsolved", "and their trend",
)  # fmt: skip


def solving_lines(section: Section, names: dict[str, str]) -> list[list[str]]:
    """Return the lines of a Markdown table, its heading first; none where nothing was trained.

    Args:
        section: with points.
        names: of the labels, as Markdown.
    """
    lines = []
    for label, points in section.curves.items():
        for length, point in sorted(_trained(points).items()):
            if not point.solving.cells and not point.solving.failed:  # planned, not run
                continue
            race = section.races.get(length)
            best = race is not None and race.best == label
            lines.append([names[label], str(length), *_cells(point.solving, best)])
    return [list(HEAD), *lines] if lines else []


def verdicts(section: Section) -> list[str]:
    """Return in words which label solves soonest, one line a trained length, as Markdown."""
    return [
        f"Trained at {length}: {_words(race)}"
        for length, race in section.races.items()
        if len(race.order) > 1
    ]


def flat(solving: Solving) -> dict[str, Any]:
    """Return all that is known, as columns of table.csv; infinite where fewer than half solve."""
    share, unsolved = solving.share, solving.unsolved or (None, None, None, 0)
    columns: dict[str, Any] = {
        "n_trained": len(solving.cells),
        "share_solved": share and share.share,
        "share_solved_low": share and share.low,
        "share_solved_high": share and share.high,
    }
    for name, outcomes in (
        ("tokens", solving.outcomes), ("flops", solving.in_flops), ("s", solving.in_seconds)
    ):  # fmt: skip
        median = median_tokens(outcomes) if outcomes else None
        columns |= {
            f"solve_{name}": median and median.tokens,
            f"solve_{name}_low": median and median.low,
            f"solve_{name}_high": median and median.high,
        }
    for name, value in zip(("accuracy", "low", "high"), unsolved, strict=False):
        columns[f"unsolved_{name}"] = value
    return columns | {f"n_{trend}": solving.trends.get(trend, 0) for trend in TRENDS}


def _trained(points: Sequence[Point]) -> dict[int, Point]:
    return {point.trained_seqlen: point for point in points}


def _cells(solving: Solving, best: bool) -> list[str]:
    share = solving.share
    failed = f"{solving.failed} failed" if solving.failed else ""
    if share is None:
        return [failed, *["-"] * 5]
    solved = f"{solving.solved} of {len(solving.cells)} [{_percent(share.low)}, "
    solved += f"{_percent(share.high)}]" + (f"; {failed}" if failed else "")
    unsolved = "-"
    if solving.unsolved:
        accuracy, low, high, n = solving.unsolved
        unsolved = f"{_percent(accuracy)} [{_percent(low)}, {_percent(high)}] n={n}"
    tokens = solved_after(solving)
    return [
        solved, f"**{tokens}**" if best else tokens, _after(solving.in_flops, _power),
        _after(solving.in_seconds, _seconds), unsolved, ", ".join(solving.fates) or "-",
    ]  # fmt: skip


def solved_after(solving: Solving) -> str:
    """Return the median tokens to solve with its interval, or how many did not suffice."""
    return _after(solving.outcomes, amount, interval=True)


def _after(
    outcomes: Sequence[Outcome], text: Callable[[float], str], interval: bool = False
) -> str:
    if not outcomes:
        return "-"
    median = median_tokens(outcomes)
    if math.isinf(median.tokens):
        return f"> {text(half_followed(outcomes))}"
    if not interval or (not median.low and math.isinf(median.high)):  # three seeds say nothing
        return text(median.tokens)
    high = "∞" if math.isinf(median.high) else text(median.high)
    return f"{text(median.tokens)} [{text(median.low)}, {high}]"


def _words(race: Verdict) -> str:
    told = {label: p for label, p in race.worse.items() if p is not None}
    later = ", ".join(f"{markdown(label)} (p {p:.2g})" for label, p in told.items())
    level = ", ".join(map(markdown, race.level))
    if race.best is not None:
        return f"**{level}** solves soonest; later, by log-rank tests: {later}."
    words = f"the tests do not tell which of these solves soonest: {level}."
    return words + (f" Later than the first of them: {later}." if later else "")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _power(flops: float) -> str:
    return f"{flops:.3g}"


def _seconds(seconds: float) -> str:
    return f"{seconds:,.1f}"
