"""Reports: stored results in, tables and a plot out, the same bytes for the same results.

`collect` reads, `labels` and `aggregate` group and average, `solving` counts what is solved,
`leaders` tests who is best, `table` and the plots write. Beside them `summary` puts one result into
words and `matrix` draws H(u).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mechbench.errors import ResultError
from mechbench.record.files import make_folder, write_text
from mechbench.report.aggregate import aggregate
from mechbench.report.collect import collect
from mechbench.report.plot import plot_accuracy
from mechbench.report.selection import selected
from mechbench.report.solving_plot import draw_solving
from mechbench.report.table import to_csv, to_markdown
from mechbench.report.tokens_plot import plot_tokens


@dataclass(frozen=True)
class Report:
    """What `write_report` made.

    Attributes:
        files: table.md, table.csv, accuracy_vs_seqlen.png and .svg, and where any cell is solved
            solve_curves.png and .svg.
        warnings: one line for each result left out or counted once; table.md has them too.
        markdown: the text of table.md.
    """

    files: tuple[Path, ...]
    warnings: tuple[str, ...]
    markdown: str


def write_report(paths: Sequence[Path], out: Path) -> Report:
    """Read every result below `paths` and write tables and plots into `out`.

    Raises:
        ResultError: a path does not exist, no result is readable, or none is there to be reported,
            or a file cannot be written.
        ConfigError: `out` is not a folder that can be written.
    """
    rows, warnings = collect(paths)
    # Where cells chose learning rates, a label is shown with its chosen one at each length.
    tuning = {row.data["cell_id"] for row in rows if row.config.tunes}
    sections = aggregate(selected(rows), hidden=("lr",)) if tuning else aggregate(rows)
    if not sections:
        raise ResultError(f"nothing to report: all {len(tuning)} results choose learning rates")
    markdown = to_markdown(sections, warnings)
    make_folder(out)
    table, tidy = out / "table.md", out / "table.csv"
    write_text(table, markdown)
    write_text(tidy, to_csv(sections))
    plots = plot_accuracy(sections, out / "accuracy_vs_seqlen")
    plots += plot_tokens(sections, out / "tokens_vs_seqlen")
    plots += draw_solving(sections, out / "solve_curves")
    return Report((table, tidy, *plots), tuple(warnings), markdown)
