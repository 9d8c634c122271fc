"""Time a sweep of many small cells with processes and with lanes, on this machine's GPU.

    python scripts/time_cells.py 1x1 4x1 1x4 2x3 --repeats 2

Each argument is worker processes a GPU times cells at once in each (`--jobs-per-device` and
`--lanes`). A first sweep compiles the kernels and is not counted. Start-up is; and every sweep must
find what the first did, or the exit code is 1 and it says how many cells of which operator differ,
and by how much. A kernel that adds in the order in which its blocks end may make them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

SUITE = """title = "Cells"
tasks = ["recall"]
operators = ["hyena", "attention"]
seeds = {seeds}
settings = {{ seqlen = {seqlen}, vocab_size = 20, budget_tokens = {tokens} }}
"""


def sweep(suite: Path, out: Path, processes: int, lanes: int, device: str) -> float:
    """Run the suite; return its seconds."""
    command = [
        sys.executable, "-m", "mechbench", "sweep", str(suite), "--out", str(out), "--quiet",
        "--device", device, "--jobs-per-device", str(processes), "--lanes", str(lanes),
    ]  # fmt: skip
    if device == "cpu":
        command += ["--jobs", str(processes)]
    began = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - began


def found(out: Path) -> dict[str, Any]:
    """Return the steps and evaluations of every cell, by operator and seed."""
    results = [json.loads(path.read_text()) for path in out.glob("*/result.json")]
    return {
        f"{data['config']['operator']} {data['config']['seed']}": (
            data["steps"],
            data["evaluations"],
        )
        for data in results
    }


def differences(these: dict[str, Any], first: dict[str, Any]) -> str:
    """Say in how many cells of each operator two sweeps differ, and by how much at most."""
    if these.keys() != first.keys():
        return "OTHER CELLS"
    other = Counter(name.split()[0] for name in these if these[name] != first[name])
    most = max(
        abs(a["accuracy"] - b["accuracy"])
        for name in these
        for a, b in zip(these[name][1], first[name][1], strict=True)
    )
    steps = sum(these[name][0] != first[name][0] for name in these)
    told = ", ".join(f"{n} of {operator}" for operator, n in other.items()) or "none"
    return f"other results: {told}; accuracies by at most {most:.4f}, steps of {steps} cells"


def main() -> int:
    """Time every way, print the seconds, return the exit code."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("ways", nargs="+", help="processes x lanes, such as 2x3")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=32, help="half as many as cells")
    parser.add_argument("--seqlen", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=3_000_000)
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args()
    ways = [tuple(map(int, way.split("x"))) for way in given.ways]
    first: dict[str, Any] | None = None
    same = True
    with tempfile.TemporaryDirectory() as folder:
        suite = Path(folder) / "suite.toml"

        def timed(name: str, seeds: int, processes: int, lanes: int) -> tuple[float, Path]:
            text = SUITE.format(seeds=list(range(seeds)), seqlen=given.seqlen, tokens=given.tokens)
            suite.write_text(text)
            out = Path(folder) / name
            return sweep(suite, out, processes, lanes, given.device), out

        timed("warm", 1, 1, 1)
        for repeat in range(given.repeats):
            for number, (processes, lanes) in enumerate(ways):
                name = f"{number}-{processes}x{lanes}-{repeat}"
                seconds, out = timed(name, given.seeds, processes, lanes)
                these = found(out)
                first = these if first is None else first
                same &= these == first
                told = differences(these, first)
                print(
                    f"{processes} processes, {lanes} lanes each: {seconds:.1f} s; {told}",
                    flush=True,
                )
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
