from __future__ import annotations

from pathlib import Path

from mechbench.leaderboard.readme import readme
from mechbench.report.aggregate import aggregate
from mechbench.report.rows import Row


def test_readme_says_where_numbers_come_from(rows: list[Row]) -> None:
    plots = [Path("a/accuracy_vs_seqlen.png"), Path("a/accuracy_vs_seqlen.svg")]
    text = readme("T", "Why?", rows, aggregate(rows), plots)
    assert text.startswith("# T\n\nWhy?\n\n16 cells: 14 ok, 1 diverged, 1 not-run.")
    assert "![accuracy vs seqlen](accuracy_vs_seqlen.png)" in text
    assert "| 15 | 2026-01-02 | CPU, 1 threads | 2.11 | 3.12 | Linux x86_64 | 0.1.0 | - |" in text
    assert "- recall, min_distance=0, vocab_size 30, d_model 64, 2 layers: attention at 128" in text


def test_nothing_missing_needs_no_list(rows: list[Row]) -> None:
    ok = [row for row in rows if row.status == "ok"]
    assert "## Not run" not in readme("T", "", ok, aggregate(ok), [])


def test_texts_from_files_are_shown_as_they_are(rows: list[Row]) -> None:
    for row in rows:
        if row.data["provenance"]:
            row.data["provenance"]["device"] = "<b>a</b> | [x](y)"
    text = readme("<T>\n# U", "<script>", rows, aggregate(rows), [])
    assert text.startswith("# &lt;T&gt; # U\n\n&lt;script>\n")
    assert "| &lt;b&gt;a&lt;/b&gt; \\| \\[x\\](y) |" in text
