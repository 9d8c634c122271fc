"""Call mechbench's Python functions with wrong types and values; count what is no MechbenchError.

    python scripts/fuzz_calls.py --count 200 --seed 1

Each call is sound but for a few arguments. Nothing is trained: `run` stops before its first step.
What breaks is printed with its seed; exit code 1: some call did.
"""

from __future__ import annotations

import argparse
import decimal
import fractions
import random
import signal
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

import mechbench
import mechbench.training.train_cell
from mechbench.errors import MechbenchError

LIMIT_S = 30.0  # of the call's own computing
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3, 7, 1.5, 2.0, -0.0, 1e308, float("nan"), float("inf"), 2**63,
    10**30, "", "x", "4", "1e3", "a\nb", "\x00", "\ud800", b"x", [], [1, 2], ["x"], (), (64,), {},
    {"a": 1}, {1: 2}, {3}, object(), lambda: 0, int, np.int64(3), np.float32(0.5), np.bool_(True),
    np.array([1, 2]), np.array(3), np.array([]), torch.tensor(3), torch.zeros(2, 3),
    torch.device("cpu"), torch.float32, Path("x"), 1j, range(3), decimal.Decimal(1),
    fractions.Fraction(1, 2), ..., NotImplemented, type("Odd", (), {}),
)  # fmt: skip
RUN: dict[str, Any] = {
    "operator": "attention", "task": "recall", "seqlen": 16, "vocab_size": 8, "d_model": 8,
    "n_layers": 1, "lr": 1e-3, "batch_size": 8, "curriculum": "none", "budget_tokens": 4000,
    "seed": 0, "eval_seqlens": (32,), "device": "cpu", "dtype": "float32",
    "operator_options": {"n_heads": 1}, "task_options": {"min_distance": 1}, "plugins": (),
    "resume": True, "allow_noncausal": False, "quiet": True, "checkpoint_s": 1.0,
    "data_parallel": 1, "n_test": 64, "n_validation": 64, "validate_every": 5, "n_train": 0,
    "grad_clip": 1.0, "weight_decay": 0.1, "warmup_steps": 10, "loss_on": "scored",
    "short_conv": 2,
}  # fmt: skip
TASK: dict[str, Any] = {"name": "recall", "vocab_size": 8, "seqlen": 16, "min_distance": 1}
OPERATOR: dict[str, Any] = {"name": "hyena", "d_model": 8, "max_seqlen": 16, "order": 2}
MORE = ("nothing", "budget_sequences", "budget_epochs", "layer", "filter", "self", "n_heads")
NAMES = ("recall", "mqar", "attention", "hyena", "s4d", "hybrid", "fla:GLA", "recal")


class Hang(BaseException):
    """A call took longer than the limit."""


class Stop(BaseException):
    """Everything before the training itself went well."""


def spoil(given: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """Return the arguments with up to three wrong, and seldom one that no function has."""
    given = dict(given)
    for key in draw.sample(list(given), draw.choice((0, 1, 1, 2, 3))):
        given[key] = draw.choice(VALUES)
        if key.endswith("_options") and draw.random() < 0.5:
            given[key] = {draw.choice(MORE): draw.choice(VALUES)}
    if draw.random() < 0.2:
        given[draw.choice(MORE)] = draw.choice(VALUES)
    return given


def call(draw: random.Random, folder: Path) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """Return a name of mechbench and the arguments to call it with."""
    name = draw.choice(("run", "run", "run", "make_task", "make_operator", "load_results",
                        "materialize", "load_plugin"))  # fmt: skip
    if name == "run":
        return name, (), spoil({**RUN, "out": folder / "runs"}, draw)
    if name in ("make_task", "make_operator"):
        given = spoil(TASK if name == "make_task" else OPERATOR, draw)
        if draw.random() < 0.3:
            given["name"] = draw.choice(NAMES)
        return name, (given.pop("name"),), given
    if name == "materialize":
        small = {"d_model": 8, "max_seqlen": 16}
        operator = draw.choice((
            *(mechbench.make_operator(n, **small) for n in ("attention", "s4d", "hyena", "rwkv")),
            torch.nn.Linear(8, 8), *VALUES,
        ))  # fmt: skip
        u = draw.choice((
            torch.zeros(2, 16, 8), torch.zeros(2, 16, 8, dtype=torch.float64), torch.zeros(16, 8),
            torch.zeros(2, 17, 8), torch.zeros(2, 16, 7), torch.zeros(0, 16, 8), torch.zeros(()),
            torch.zeros(2, 0, 8), torch.zeros(2, 16, 8, dtype=torch.int64), *VALUES,
        ))  # fmt: skip
        return name, (operator, u), {}
    paths = (folder / "absent", folder, "", folder / "text", *VALUES)
    number = draw.choice((1, 1, 2)) if name == "load_results" else 1
    return name, tuple(draw.choice(paths) for _ in range(number)), {}


def outcome(name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> str:
    """Call; return "fine", "one line", "hang" or the traceback."""

    def alarm(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGPROF, alarm)
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    try:
        getattr(mechbench, name)(*args, **keywords)
    except MechbenchError as error:
        return "one line" if len(str(error).splitlines()) == 1 else f"many lines: {error}"
    except Stop:
        return "fine"
    except Hang:
        return "hang"
    except BaseException:
        return f"traceback: {traceback.format_exc()[-1500:]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return "fine"


def main() -> int:
    """Make the calls; return the exit code."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the first; the next counts on")
    given = parser.parse_args()
    found: Counter[str] = Counter()

    def stop(*_: object, **__: object) -> None:
        raise Stop

    with (
        tempfile.TemporaryDirectory() as scratch,
        mock.patch.object(mechbench.training.train_cell, "train", stop),
    ):
        folder = Path(scratch)
        (folder / "text").write_text("x = (", encoding="utf-8")
        for seed in range(given.seed, given.seed + given.count):
            name, args, keywords = call(random.Random(seed), folder)
            kind, _, text = outcome(name, args, keywords).partition(":")
            found[kind] += 1
            if kind not in ("fine", "one line"):
                print(f"--- seed {seed}: {name} {args!r:.300} {keywords!r:.1500}\n{kind}{text}")
                sys.stdout.flush()
    print(f"{given.count} calls: {', '.join(f'{k} {v}' for k, v in sorted(found.items()))}")
    return 1 if found.keys() - {"fine", "one line"} else 0


if __name__ == "__main__":
    sys.exit(main())
