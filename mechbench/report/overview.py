"""Tasks of different chance in one table: accuracies, and what they are beyond chance. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from mechbench.report.aggregate import Point, Section


def scaled(accuracy: float | None, chance: float) -> float | None:
    """Return (accuracy - chance) / (1 - chance): 0 is a guess, 1 all right; below 0 is worse."""
    return None if accuracy is None or chance >= 1 else (accuracy - chance) / (1 - chance)


def overview_lines(sections: Sequence[Section]) -> list[list[str]]:
    """Return the lines of a table, a setting each and a column a label; none if chance is one.

    Each cell is the accuracy at the longest trained length that the setting's labels share, with
    the scaled one in brackets, in percent. The texts are not escaped.
    """
    chances = {f"{chance:.6f}" for section in sections for chance in section.chance.values()}
    if len(sections) < 2 or len(chances) < 2:
        return []
    found = {section.title: _at_trained(section) for section in sections}
    labels = sorted({label for points in found.values() for label in points})
    lines = [["accuracy (scaled) where trained", "length", "chance", *labels]]
    for section in sections:
        points = found[section.title]
        if not points:
            continue
        length = next(iter(points.values())).eval_seqlen
        chance = section.chance[length]
        cells = [_cell(points.get(label), chance) for label in labels]
        lines.append([section.title, str(length), f"{100 * chance:.1f}", *cells])
    return lines


def _at_trained(section: Section) -> dict[str, Point]:
    """Return the point of each label at the longest length that most labels were trained at."""
    own = [point for point in section.points if point.eval_seqlen == point.trained_seqlen]
    counts = {n: sum(p.trained_seqlen == n for p in own) for n in {p.trained_seqlen for p in own}}
    length = max(counts, key=lambda n: (counts[n], n), default=0)
    return {_short(p): p for p in own if p.trained_seqlen == length}


def _short(point: Point) -> str:
    """Return a label without the length, which has a column of its own."""
    return point.label.removesuffix(f", trained at {point.trained_seqlen}")


def _cell(point: Point | None, chance: float) -> str:
    if point is None:
        return "-"
    beyond = scaled(point.accuracy, chance)
    if point.accuracy is None or beyond is None:
        return point.failures or "-"
    return f"{100 * point.accuracy:.1f} ({100 * beyond:.1f})"
