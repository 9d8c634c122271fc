"""Compare the cost of `mechbench --help` with that of `import click`, in CPU seconds.

    python scripts/time_startup.py --repeats 10

Medians of processes of each kind, one after the other in turn, so that what else the machine does
meets both. Exit code 1: the ratio is at its limit or above.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

LIMIT = 4.0
COMMANDS = {
    "an empty program": [sys.executable, "-c", "pass"],
    "import click": [sys.executable, "-c", "import click"],
    "mechbench --help": [sys.executable, "-m", "mechbench", "--help"],
}


def cpu_s(command: list[str]) -> float:
    """Run the command; return the CPU seconds that it took, of user and system."""
    before = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])


def main() -> int:
    """Time both, print the ratio, return the exit code."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10)
    given = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for command in COMMANDS.values():
        cpu_s(command)  # once for the caches
    for _ in range(given.repeats):
        for name, command in COMMANDS.items():
            found[name].append(cpu_s(command))
    medians = {name: statistics.median(times) for name, times in found.items()}
    ratio = medians["mechbench --help"] / medians["import click"]
    for name, median in medians.items():
        print(f"{name}: {1000 * median:.0f} ms of CPU")
    empty, click, whole = medians.values()
    print(f"ratio {ratio:.2f}: expected under {LIMIT:g}")
    print(f"without the interpreter's own start {(whole - empty) / (click - empty):.2f}")
    return int(ratio >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
