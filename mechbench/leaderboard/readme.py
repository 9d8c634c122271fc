"""A leaderboard's README.md: the question, the pictures, and where every number comes from."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from mechbench.record.results import NOT_RUN, STATUSES
from mechbench.report.aggregate import Section
from mechbench.report.escape import markdown
from mechbench.report.rows import Row
from mechbench.report.table import markdown_table

_HOW = (
    "Everything here is made from `results.csv` by `mechbench leaderboard build`; its columns are "
    "described in `mechbench/report/results_csv.py`. Where several learning rates were tried, the "
    "one with the highest validation accuracy stands for its operator at each point; the others "
    "are in `results.csv` only."
)
_TUNED = (
    "Everything here is made from `results.csv` by `mechbench leaderboard build`; its columns are "
    "described in `mechbench/report/results_csv.py`. Learning rates are chosen with seeds that are "
    "not reported, for each operator at each point, and by one rule for every operator: "
    "by the share solved, then the tokens to solve, then validation accuracy. These {} cells are "
    "in `results.csv` only, and counted in the table of costs."
)


def readme(
    title: str, question: str, rows: Sequence[Row], sections: Sequence[Section],
    plots: Sequence[Path],
) -> str:  # fmt: skip
    """Return the text of README.md."""
    results = {row.data["cell_id"]: row for row in rows}
    tuning = [row for row in results.values() if row.config.tunes]
    counts = Counter(row.status for row in results.values())
    said = [f"{counts[s]} {s}" for s in (*STATUSES, NOT_RUN) if counts[s]]
    blocks = [f"# {markdown(title)}"]
    if question:
        blocks.append(question.strip().replace("<", "&lt;"))
    blocks.append(f"{len(results)} cells: {', '.join(said)}. Numbers: [table.md](table.md).")
    pictures = [path for path in plots if path.suffix == ".png"]
    blocks += [f"![{path.stem.replace('_', ' ')}]({path.name})" for path in pictures]
    how = _TUNED.format(len(tuning)) if tuning else _HOW
    blocks += ["## Provenance", how, _provenance(list(results.values()))]
    missing = _not_run(sections)
    if missing:
        blocks += ["## Not run", "\n".join(missing)]
    return "\n\n".join(blocks) + "\n"


def _provenance(results: Sequence[Row]) -> str:
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for row in results:
        if row.status == NOT_RUN:
            continue
        origin = row.data["provenance"]
        key = tuple(
            markdown(origin[name]) if origin.get(name) else "-"
            for name in ("device", "torch", "python", "platform", "mechbench", "git_commit")
        )
        groups[key].append(str(origin.get("date") or "-"))
    lines = [["cells", "dates", "device", "torch", "python", "platform", "mechbench", "commit"]]
    for key, dates in sorted(groups.items()):
        first, last = min(dates)[:10], max(dates)[:10]
        span = markdown(first if first == last else f"{first} to {last}")
        lines.append([str(len(dates)), span, *key])
    return markdown_table(lines) if groups else "Nothing was run yet."


def _not_run(sections: Sequence[Section]) -> list[str]:
    lines = []
    for section in sections:
        absent: dict[str, list[str]] = defaultdict(list)
        for point in section.points:
            count = point.statuses.get(NOT_RUN, 0)
            if count:
                total = sum(point.statuses.values())
                some = "" if count == total else f" ({count} of {total} seeds)"
                absent[point.label].append(f"{point.eval_seqlen}{some}")
        lines += [
            f"- {markdown(section.title)}: {markdown(label)} at {', '.join(lengths)}"
            for label, lengths in sorted(absent.items())
        ]
    return lines
