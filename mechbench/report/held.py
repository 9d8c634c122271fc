"""Train short, test long: how far accuracy holds, and the lengths of training. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterable

from mechbench.report.aggregate import Point, Section

HELD = 0.9  # accuracy above which a length counts as held


def held_up_to(points: Iterable[Point]) -> int | None:
    """Return the length up to which accuracy stays above `HELD`, None if it nowhere does.

    Args:
        points: of one model, which count from its trained length on.
    """
    held = None
    for point in sorted(points, key=lambda p: p.eval_seqlen):
        if point.eval_seqlen < point.trained_seqlen:
            continue
        if point.accuracy is None or point.accuracy <= HELD:
            break
        held = point.eval_seqlen
    return held


def trained_range(section: Section) -> tuple[int, int] | None:
    """Return the shortest and longest length of training, where that is one range for all models.

    None as well where every model was trained at the length that it is scored at.
    """
    lengths = {point.trained_seqlen for point in section.points}
    if not section.crossing or len(lengths) > 1:
        return None
    longest = lengths.pop()
    least = json.loads(section.setting.task_options).get("min_seqlen") or longest
    return min(least, longest), longest


def trained_at(section: Section) -> str:
    """Say at which lengths the models of a section were trained that are scored at others."""
    trained = sorted({p.trained_seqlen for p in section.points})
    if len(trained) > 1:
        return "trained at the length in the label"
    least, most = trained_range(section) or (trained[0], trained[0])
    return "trained at " + (f"{most}" if least == most else f"{least} to {most}")
