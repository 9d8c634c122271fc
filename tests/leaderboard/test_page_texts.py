"""What of a page comes from files is shown and does not run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mechbench.leaderboard.board import read_board
from mechbench.report.results_csv import write_rows
from mechbench.report.rows import rows_of

pytest.importorskip("plotly", reason="needs mechbench[html]")
pytest.importorskip("itables", reason="needs mechbench[html]")

from mechbench.leaderboard.page import write_page

HOSTILE = '<img src=x onerror="alert(1)">'


def test_texts_from_files_do_not_run(make: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """Names of folders, suites, operators, options and devices; `</script>` ends no script."""
    folder = tmp_path / "boards" / f"{HOSTILE}<"
    folder.mkdir(parents=True)
    data = make(operator=HOSTILE, operator_options={"<b>": "</script><i>"}, lr=1.0)
    data["provenance"]["device"] = HOSTILE
    other = make(operator=HOSTILE, operator_options={"<b>": 1}, task_options={"</script>": HOSTILE})
    write_rows(folder / "results.csv", [*rows_of(data), *rows_of(other)])
    title = HOSTILE.replace('"', '\\"')
    (folder / "suite.toml").write_text(
        f'title = "{title}"\nquestion = "{title}"\ntasks = ["recall"]\noperators = ["hyena"]\n'
    )
    page, *_ = write_page([read_board(folder)], folder.parent / "index.html")
    text = page.read_text(encoding="utf-8")
    assert "<img src=x" not in text
    assert "</script><i>" not in text
    assert 'id="-img-src-x-onerror--alert-1----' in text
