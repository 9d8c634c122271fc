"""Damage stored files at random and see that every reader says so in one line.

    python scripts/fuzz_files.py --count 2000 --seed 0

A run, a folder of results and a leaderboard are made once; then each try damages one file of a copy
(bytes, fields, types, truncation, encoding, huge numbers, deep nesting, fields that stand there
twice) and lets the commands that read it at it. Anything but success or a MechbenchError is
printed with its seed, as is what computes for 30 seconds or takes 300; the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import mechbench
from mechbench.checks.inspection import portraits, trained
from mechbench.errors import MechbenchError
from mechbench.leaderboard.board import read_board
from mechbench.leaderboard.build import build_board
from mechbench.leaderboard.readme import readme
from mechbench.leaderboard.submit import submit
from mechbench.record.config import Config
from mechbench.report import write_report
from mechbench.report.aggregate import aggregate
from mechbench.report.collect import collect
from mechbench.report.frame import load_results
from mechbench.report.summary import summary
from mechbench.report.table import to_csv, to_markdown
from mechbench.report.watch import picture, read_runs

LIMIT_S = 30
MEMORY = 12 * 2**30  # bytes of address space: what asks for more is told of, not killed
SETTINGS: dict[str, Any] = {
    "operator": "attention", "task": "recall", "seqlen": 16, "vocab_size": 8, "d_model": 8,
    "n_layers": 1, "batch_size": 8, "curriculum": "none", "n_test": 64, "n_validation": 8,
    "device": "cpu", "validate_every": 1, "operator_options": {"n_heads": 1},
}  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 1.5, -0.0, 1e308, float("inf"), float("nan"), 2**31, 2**63, 10**25,
    "", "x", "1", "ok", "not-run", "nan", "x" * 100_000, [], [[]], {}, {"": ""}, [1, [2, [3]]],
    "\ud800", "\x00\x1b[2J", "<script>alert(1)</script>", "=1+1", "../../etc", "a\nb", "\u202e",
)  # fmt: skip


class Hung(BaseException):
    """Raised by the alarm; no handler of Exception takes it."""


def make(root: Path) -> None:
    """Make the good files that are damaged later: run/, runs/ and board/."""
    tokens = 8 * SETTINGS["seqlen"] * 3
    for seed in (0, 1):
        mechbench.run(**SETTINGS, seed=seed, budget_tokens=tokens, out=root / "runs", quiet=True)
    shutil.copytree(next((root / "runs").glob("*")), root / "run")
    board = Path(mechbench.__file__).parent.parent / "leaderboards" / "smoke"
    shutil.copytree(board, root / "board")


def damage(path: Path, random: random.Random) -> str:
    """Damage a file and say how."""
    kinds: list[Callable[[Path, random.Random], None]] = [_bytes, _cut, _whole]
    if path.suffix == ".json":
        kinds += [_json] * 6 + [_json_text]
    elif path.suffix == ".csv":
        kinds += [_cells] * 5
    elif path.suffix == ".pt":
        kinds += [_checkpoint] * 4
    elif path.suffix == ".toml":
        kinds += [_lines] * 4
    kind = random.choice(kinds)
    kind(path, random)
    return f"{path.name} {kind.__name__.lstrip('_')}"


def _bytes(path: Path, random: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(random.choice((1, 3, 30))):
        at = random.randrange(len(data))
        data[at : at + random.randrange(2)] = random.randbytes(random.randrange(3))
    path.write_bytes(data)


def _cut(path: Path, random: random.Random) -> None:
    data = path.read_bytes()
    a, b = sorted(random.randrange(len(data) + 1) for _ in range(2))
    path.write_bytes(random.choice((data[:a], data[a:], data[:a] + data[b:], data + data[a:b])))


def _whole(path: Path, random: random.Random) -> None:
    data = path.read_bytes()
    text = data.decode("latin-1")
    path.write_bytes(
        random.choice((
            b"", b"\x00" * 1000, b"\xff\xfe", b"\xef\xbb\xbf" + data, text.encode("utf-16"),
            b"[" * 100_000, b'{"a":' * 50_000, b"9" * 100_000, b"null", b"[]", b"{}", b'"x"',
            data.replace(b"\n", b"\r\n"), b"\n" * 1000, data.replace(b"0", b"\xd9\xa0"),
        ))
    )  # fmt: skip


def _json(path: Path, random: random.Random) -> None:
    """Replace, remove or rename a field; half the time its hash is made to fit."""
    data = json.loads(path.read_text())
    for _ in range(random.choice((1, 1, 1, 4))):
        _change(data, random)
    if random.random() < 0.5:
        with contextlib.suppress(Exception):
            data["cell_id"] = Config.from_dict(data["config"]).cell_id
    path.write_text(json.dumps(data))


def _change(data: Any, random: random.Random) -> None:
    places = list(_places(data))
    if not places:
        return
    holder, key = random.choice(places)
    action = random.randrange(5)
    if action == 0:
        del holder[key]
    elif action == 1 and isinstance(holder, dict):
        holder[random.choice(("x", "", "config", str(key) + "s"))] = holder.pop(key)
    elif action == 2 and isinstance(holder[key], int | float):
        holder[key] = random.choice((-1, 2, 1e-9, 10, 10**6, 2**40)) * holder[key]
    else:
        holder[key] = random.choice(VALUES)


def _places(data: Any) -> Any:
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in list(items):
        yield data, key
        if isinstance(value, dict | list):
            yield from _places(value)


def _json_text(path: Path, random: random.Random) -> None:
    """Write a line twice, or a number that JSON cannot hold."""
    lines = json.dumps(json.loads(path.read_text()), indent=1).splitlines()
    at = random.randrange(1, max(2, len(lines) - 1))
    number = random.choice(("1e999", "NaN", "-Infinity", "9" * 5000, "01", "0x1", "[" * 5000))
    head = lines[at].partition(":")[0]
    lines[at:at] = [random.choice((lines[at], f"{head}: {number},"))]
    path.write_text("\n".join(lines))


def _cells(path: Path, random: random.Random) -> None:
    rows = [line.split(",") for line in path.read_text().splitlines()]
    for _ in range(random.choice((1, 5))):
        row = random.choice(rows)
        at = random.randrange(len(row))
        value = random.choice(VALUES)
        row[at] = random.choice(
            (json.dumps(value), str(value).encode(errors="replace").decode(), "", row[at] * 2, '"')
        )
        if random.random() < 0.2:
            row.insert(at, "1")
    path.write_text("\n".join(map(",".join, rows)))


def _lines(path: Path, random: random.Random) -> None:
    lines = path.read_text().splitlines()
    at = random.randrange(len(lines))
    name = lines[at].partition("=")[0]
    value = random.choice(VALUES)
    lines[at] = random.choice(
        ("", f"{name}= {json.dumps(value)}", lines[at] * 2, f"{name}[x]", f"{name}= 1e999")
    )
    path.write_text("\n".join(lines))


def _checkpoint(path: Path, random: random.Random) -> None:
    data = torch.load(path, weights_only=False)
    holder = data
    while isinstance(holder, dict | list) and holder:
        key = random.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        if random.random() < 0.3 or not isinstance(holder[key], dict | list):
            holder[key] = random.choice((*VALUES, torch.zeros(3), torch.full((8, 8), float("nan"))))
            break
        holder = holder[key]
    torch.save(data, path)


def readers(root: Path, name: str, random: random.Random) -> dict[str, Callable[[], object]]:
    """Return the commands that read a file of that name."""
    folder, runs, board, out = root / "run", root / "runs", root / "board", root / "out"
    draws = random.random() < 0.05  # drawing takes its time

    def report() -> None:
        if draws:
            write_report([runs], out)
        rows, warned = collect([runs])
        sections = aggregate(rows)
        to_markdown(sections, warned), to_csv(sections)

    def watch() -> None:
        picture(read_runs(runs)[0])

    def inspect() -> None:
        specimen = trained(folder)
        if draws:
            portraits(specimen, out)

    def resume() -> None:
        tokens = 8 * SETTINGS["seqlen"] * 3
        seed = json.loads((root / "good.json").read_text())["seed"]
        result = mechbench.run(**SETTINGS, seed=seed, budget_tokens=tokens, out=runs, quiet=True)
        summary(result)

    def build() -> None:
        found = read_board(board)
        to_markdown(found.sections, []), to_csv(found.sections)
        readme(found.title, "", found.rows, found.sections, [])
        if draws:
            build_board(found)

    def add() -> None:
        submit([runs], root / "board-2", board / "suite.toml", without_refused=True)

    def frame() -> None:
        load_results(runs)

    return {
        "result.json": {"report": report, "watch": watch, "load_results": frame, "submit": add,
                        "resume": resume},
        "metrics.csv": {"watch": watch, "resume": resume},
        "config.json": {"watch": watch, "inspect": inspect, "resume": resume},
        "checkpoint.pt": {"inspect": inspect, "resume": resume},
        "results.csv": {"build": build},
        "suite.toml": {"build": build, "submit": add},
    }[name]  # fmt: skip


def attempt(good: Path, seed: int, found: Counter[str]) -> None:
    """Damage one file of a fresh copy and let its readers at it."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "all"
        shutil.copytree(good, root)
        target = next(path for path in (root / "runs").glob("*") if path.is_dir())
        shutil.copy(target / "config.json", root / "good.json")
        name = chance.choice(
            ("result.json", "result.json", "metrics.csv", "config.json", "checkpoint.pt",
             "results.csv", "suite.toml")
        )  # fmt: skip
        path = (root / "board" if name in ("results.csv", "suite.toml") else target) / name
        how = damage(path, chance)
        if name in ("config.json", "checkpoint.pt", "metrics.csv"):
            (target / "result.json").unlink()  # or resuming reads nothing else
        shutil.rmtree(root / "run")
        shutil.copytree(target, root / "run")
        for command, read in readers(root, name, chance).items():
            outcome, text = _outcome(read)
            found[outcome] += 1
            if outcome in ("traceback", "hang"):
                found[f"{outcome} {command}"] += 1
                print(f"\nseed {seed}: {how}: {command}: {outcome}\n{text}", flush=True)


def _outcome(read: Callable[[], object]) -> tuple[str, str]:
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    signal.alarm(10 * LIMIT_S)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            read()
        return "read", ""
    except MechbenchError:
        return "one line", ""
    except Hung:
        return "hang", "".join(traceback.format_exc().splitlines(keepends=True)[-12:])
    except Exception:
        return "traceback", "".join(traceback.format_exc().splitlines(keepends=True)[-12:])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="files to damage")
    parser.add_argument("--seed", type=int, default=0, help="of the first; the next counts on")
    args = parser.parse_args()

    def hung(*_: object) -> None:
        raise Hung

    signal.signal(signal.SIGALRM, hung)
    signal.signal(signal.SIGPROF, hung)
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        good = Path(folder)
        make(good)
        for seed in range(args.seed, args.seed + args.count):
            attempt(good, seed, found)
    print(f"{args.count} damaged files: {dict(sorted(found.items()))}")
    sys.exit(1 if found["traceback"] or found["hang"] else 0)


if __name__ == "__main__":
    main()
