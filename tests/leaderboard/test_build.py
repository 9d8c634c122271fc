from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

from mechbench.leaderboard.board import read_board
from mechbench.leaderboard.build import build_board

ROOT = Path(__file__).parents[2]
FILES = {
    "table.md", "table.csv", "README.md",
    *(f"accuracy_vs_{x}.{s}" for x in ("seqlen", "vocab", "compute") for s in ("png", "svg")),
    "heatmap.png", "heatmap.svg",
}  # fmt: skip


def test_everything_is_made_the_same_each_time(folder: Path) -> None:
    files = build_board(read_board(folder))
    assert {p.name for p in files} == FILES
    before = {p: p.read_bytes() for p in files}
    for path in files:
        path.unlink()
    build_board(read_board(folder))
    assert {p: p.read_bytes() for p in files} == before


def test_failures_and_gaps_are_shown(folder: Path) -> None:
    build_board(read_board(folder))
    table = (folder / "table.md").read_text()
    assert "diverged (1 of 2)" in table
    assert "not-run (1 of 2)" in table
    assert "seed 1: diverged: it went \\| wrong" in table
    readme = (folder / "README.md").read_text()
    assert "16 cells: 14 ok, 1 diverged, 1 not-run" in readme
    assert "attention at 128 (1 of 2 seeds)" in readme
    with (folder / "table.csv").open(newline="") as file:
        lines = {
            (r["operator"], r["vocab_size"], r["eval_seqlen"]): r for r in csv.DictReader(file)
        }
    assert lines["attention", "30", "128"]["n_not_run"] == "1"
    assert lines["attention", "10", "128"]["n_diverged"] == "1"
    assert float(lines["hyena", "10", "64"]["train_flops"]) == 1.5e6 * 9000


def test_suite_gives_title_and_question(folder: Path) -> None:
    (folder / "suite.toml").write_text(
        'title = "My title"\nquestion = "How far?"\ntasks = ["recall"]\noperators = ["hyena"]\n'
    )
    build_board(read_board(folder))
    assert (folder / "README.md").read_text().startswith("# My title\n\nHow far?\n")
    assert (folder / "table.md").read_text().startswith("# My title\n")


def test_script_regenerates_in_one_command_without_torch(folder: Path) -> None:
    code = (
        "import runpy, sys\nsys.argv = ['regenerate_leaderboards.py', sys.argv[1]]\n"
        f"runpy.run_path({str(ROOT / 'scripts' / 'regenerate_leaderboards.py')!r}, "
        "run_name='__main__')\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder.parent)], capture_output=True, text=True, check=True
    )
    assert {Path(line).name for line in done.stdout.split()} >= FILES
