"""Kill small runs and sweeps at random times, carry them on, and compare with undisturbed ones.

    python scripts/kill_runs.py --runs 100 --sweeps 30

A run or sweep is killed (SIGKILL; a sweep's workers notice and end) again and again, each time
after a random part of the time that the undisturbed one took, until one try comes to its end. Its
results must then be those of the undisturbed one in everything but clocks, and no temporary file be
left. torch is imported once and every try forked from there, so that most kills fall into training;
how many did is told. --runs and --sweeps are numbers of kills, reached with as many runs as it
takes.
Exit status 1 if any differs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import mechbench.training.cell  # noqa: F401  # imported here, not by every try
from mechbench.cli import main as main_of_mechbench

FORK = multiprocessing.get_context("fork")
MODEL = ["--seqlen", "16", "--vocab-size", "8", "--d-model", "16", "--n-layers", "1"]
RUN = [
    "run", "--operator", "drawing", "--task", "recall", *MODEL, "--budget", str(100 * 8 * 18),
    "--batch-size", "8", "--test-examples", "64", "--checkpoint-every", "0", "--device", "cpu",
    "--eval-seqlen", "32", "--quiet",
]  # fmt: skip
PLUGIN = """
import random, torch, mechbench

@mechbench.register_operator("drawing")
class Drawing(torch.nn.Module):
    '''Draws from the generators of torch and Python, and keeps a mean outside its state dict.'''

    def __init__(self, d_model: int, max_seqlen: int) -> None:
        super().__init__()
        self.mix = torch.nn.Linear(d_model, d_model)
        self.register_buffer("mean", torch.zeros(d_model), persistent=False)

    def forward(self, u):
        y = torch.nn.functional.dropout(self.mix(u), 0.1, self.training)
        if self.training:
            y = y * (1 + 0.1 * random.random())
            with torch.no_grad():
                self.mean = 0.9 * self.mean + 0.1 * u.mean((0, 1))
        return y + self.mean
"""
SUITE = """title = "Killed"
tasks = ["recall"]
plugins = ["plugin.py"]
operators = ["drawing", "attention"]
seeds = [0, 1]
settings = { seqlen = 16, vocab_size = 8, d_model = 16, n_layers = 1, batch_size = 8, budget_sequences = 400, n_test = 64, n_validation = 64 }
"""  # noqa: E501
CLOCKS = {"seconds", "tokens_per_s", "peak_memory_mib", "provenance"}
TRIES = 40  # of one run, the last few with ever more time


def outcome(out: Path) -> dict[str, Any]:
    """Return what lies in a folder of results, without what clocks and resuming change."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("result.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        lines = (path.parent / "metrics.csv").read_text(encoding="utf-8").splitlines()
        columns = [
            i for i, c in enumerate(lines[0].split(",")) if c not in ("tokens_per_s", "train_s")
        ]
        rows = [[line.split(",")[i] for i in columns] for line in lines]
        found[path.parent.name] = {k: v for k, v in data.items() if k not in CLOCKS} | {
            "rows": rows
        }
    return found


def child(arguments: list[str], folder: Path) -> None:
    """Be `mechbench *arguments`, in a session of its own."""
    os.setsid()
    os.chdir(folder)
    with open(os.devnull, "w") as nothing, open("error.txt", "w") as error:
        os.dup2(nothing.fileno(), 1)
        os.dup2(error.fileno(), 2)
    sys.argv = ["mechbench", *arguments]
    main_of_mechbench()


def attempt(arguments: list[str], folder: Path, seconds: float) -> bool:
    """Run `mechbench *arguments`; kill it and its children after `seconds`. Return if it ended."""
    process = FORK.Process(target=child, args=(arguments, folder))
    process.start()
    process.join(seconds)
    if process.is_alive():
        assert process.pid is not None
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:  # no session of its own yet
            process.kill()
        process.join()
        return False
    if process.exitcode:
        error = (folder / "error.txt").read_text(encoding="utf-8")
        raise SystemExit(f"exit status {process.exitcode}: {error}")
    return True


def in_training(out: Path) -> bool:
    """Return whether some cell has begun to train and is not done."""
    return any(not (p.parent / "result.json").exists() for p in out.rglob("checkpoint.pt"))


def killed(
    arguments: list[str], folder: Path, out: str, whole_s: float, generator: random.Random
) -> tuple[int, int]:
    """Kill until a try ends; return how often it was killed, and how often while training."""
    training = 0
    for number in range(TRIES):
        # Later tries get longer, so that the end is reached.
        seconds = generator.uniform(0.1, 1.0) * whole_s * (1 + number / 10)
        if attempt([*arguments, "--out", out], folder, seconds):
            return number, training
        training += in_training(folder / out)
    raise SystemExit(f"{folder}: not at its end after {TRIES} tries")


def main() -> int:
    """Kill, carry on, compare; print what differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=20, help="kills of runs")
    parser.add_argument("--sweeps", type=int, default=4, help="kills of sweeps")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    generator = random.Random(given.seed)
    torch.set_num_threads(1)  # a fork has no threads but its own
    kinds = {
        "run": (given.runs, RUN),
        "sweep": (given.sweeps, ["sweep", "suite.toml", "--quiet", "--checkpoint-every", "0"]),
    }
    differ = 0
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "plugin.py").write_text(PLUGIN, encoding="utf-8")
        (root / "suite.toml").write_text(SUITE, encoding="utf-8")
        for kind, (count, command) in kinds.items():
            if not count:
                continue
            more = (
                ["--plugin", "plugin.py"] if kind == "run" else ["--jobs", "2", "--device", "cpu"]
            )
            began = time.monotonic()
            attempt([*command, *more, "--out", f"{kind}-whole"], root, 600)
            whole_s = time.monotonic() - began
            expected = outcome(root / f"{kind}-whole")
            kills = training = number = 0
            while kills < count:
                out = f"{kind}-{number}"
                more_kills, in_it = killed([*command, *more], root, out, whole_s, generator)
                kills, training, number = kills + more_kills, training + in_it, number + 1
                left = [path.name for path in (root / out).rglob("*.tmp")]
                if outcome(root / out) != expected or left:
                    differ += 1
                    print(f"{out} differs; left over: {left}", flush=True)
                if not number % 5 or kills >= count:
                    print(
                        f"{number} {kind}s of {whole_s:.1f} s, killed {kills} times, "
                        f"{training} of these in training: {differ} differ so far",
                        flush=True,
                    )
    return differ > 0


if __name__ == "__main__":
    sys.exit(main())
