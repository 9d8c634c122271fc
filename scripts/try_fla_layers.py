"""Try every layer of flash-linear-attention on a GPU through mechbench; write docs/fla-layers.md.

    python scripts/try_fla_layers.py --jobs 4

Each layer goes through `mechbench check` and a short `mechbench run`, each in a process with a time
limit. What is found is a line of OUT/layers.jsonl as soon as a layer has ended, so that the same
command goes on after an interruption, or after `--stop-after` seconds; `--again` tries layers anew
that failed. The time goes into compiling: as many jobs as the machine has cores are not too many.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib import metadata
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import click

from mechbench.catalogue.packages import FLA
from mechbench.catalogue.registry import OPERATORS
from mechbench.record.files import write_text
from mechbench.record.results import find_results, read_result

# Compiling all that kernels could be tuned to takes minutes a layer, and whether one works does not
# hang on it. So each has but the first of its configurations.
UNTUNED = """
import sys
from triton.runtime.autotuner import Autotuner
from mechbench.cli import program

make = Autotuner.__init__
Autotuner.__init__ = lambda self, fn, names, configs, *rest, **named: make(
    self, fn, names, configs[:1], *rest, **named
)
sys.argv[0] = "mechbench"
program()
"""
MECHBENCH = (sys.executable, "-c", UNTUNED)
PAGE = Path(__file__).resolve().parents[1] / "docs" / "fla-layers.md"
SEQLEN = 128  # beyond 64 tokens, from which on most layers use the kernels that they train with
CHECK = ("check", "--seqlen", str(SEQLEN))
RUN = ("run", "--task", "recall", "--seqlen", str(SEQLEN), "--vocab-size", "10",
       "--budget", "1000000", "--quiet")  # fmt: skip
PACKAGES = ("mechbench", "fla-core", "flash-linear-attention", "torch", "triton", "transformers")
WIDEST = 160  # characters of a reason in the table

Row = dict[str, Any]
RUNNING: set[subprocess.Popen[str]] = set()


def layers() -> list[str]:
    """Return the names of all layers that mechbench offers."""
    return [name for name in OPERATORS.names() if name.startswith(f"{FLA.prefix}:")]


def gpus() -> list[str]:
    """Return the visible GPUs as CUDA_VISIBLE_DEVICES names them; one if none is seen."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given:
        return given.split(",")
    try:
        told = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ["0"]
    return [str(i) for i, _ in enumerate(told.stdout.splitlines())] or ["0"]


def call(arguments: Sequence[str], gpu: str, limit_s: float) -> tuple[int | None, str]:
    """Run mechbench; return its exit code, None if time ran out, and what it printed last."""
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        process = subprocess.Popen(
            [*MECHBENCH, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": gpu},
            start_new_session=True,
            text=True,
        )
        RUNNING.add(process)
        try:
            code: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
            end(process)
        RUNNING.discard(process)
        said.seek(0)
        return code, last_words(said.read())


def end(process: subprocess.Popen[str]) -> None:
    """End a process and all that it started."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def last_words(text: str) -> str:
    """Return the error that mechbench told, or else the last exception, or the last line."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("mechbench: error: ")]
    raised = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]
    told = (errors or raised or lines or ["nothing was printed"])[-1]
    return told.removeprefix("mechbench: error: ")


def checked(name: str, folder: Path, device: str, gpu: str, limit_s: float) -> Row:
    """Examine a layer; return whether it is sound, and why not."""
    out = folder / "check"
    line = [*CHECK, "--operator", name, "--device", device, "--out", str(out)]
    code, words = call(line, gpu, limit_s)
    if code is None:
        return {"sound": None, "reason": f"not examined within {limit_s:.0f} s"}
    file = out / "check.json"
    if not file.is_file():
        return {"sound": False, "reason": words}
    found = json.loads(file.read_text(encoding="utf-8"))
    parts = sorted(found.items(), key=lambda item: item[0] != "soundness")
    findings = [f for _, part in parts if isinstance(part, list) for f in part]
    failed = [f"{f['name']}: {f['text']}" for f in findings if f["verdict"] == "FAIL"]
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    return {
        "sound": found["sound"],
        "reason": failed[0] + more if failed else None,
        "device": found["provenance"]["device"],
    }


def trained(name: str, folder: Path, device: str, gpu: str, limit_s: float) -> Row:
    """Train a layer for a short while; return its score and speed, or why there is none."""
    out = folder / "runs"
    line = [*RUN, "--operator", name, "--device", device, "--out", str(out)]
    code, words = call(line, gpu, limit_s)
    results = [read_result(path).data for path in find_results(out)] if any_result(out) else []
    if code is None:
        return {"status": None, "reason": f"not trained within {limit_s:.0f} s"}
    if not results:
        return {"status": "error", "reason": words}
    data = results[-1]
    scores = [e for e in data["evaluations"] if e["seqlen"] == SEQLEN]
    keys = ("status", "reason", "chance", "train_tokens", "tokens_per_s", "parameters")
    return {
        **{key: data[key] for key in keys},
        **({k: scores[0][k] for k in ("accuracy", "ci_low", "ci_high")} if scores else {}),
        "device": data["provenance"]["device"],
    }


def any_result(folder: Path) -> bool:
    """Return whether a run has stored anything."""
    return any(folder.rglob("result.json"))


def attempt(name: str, out: Path, device: str, gpu: str, limit_s: float) -> Row:
    """Check and train one layer, each within the limit."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name.partition(':')[2]}-", dir=out))
    start = time.monotonic()
    return {
        "layer": name,
        "check": checked(name, folder, device, gpu, limit_s),
        "run": trained(name, folder, device, gpu, limit_s),
        "seconds": round(time.monotonic() - start, 1),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of the packages that decide what comes out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def stored(file: Path) -> dict[str, Row]:
    """Return the rows of a file, the last one of each layer; a line cut short is left out."""
    found: dict[str, Row] = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        found[row["layer"]] = row
    return found


def fine(row: Row) -> bool:
    """Return whether a layer is sound and was trained."""
    return bool(row["check"]["sound"]) and row["run"]["status"] == "ok"


def page(rows: Sequence[Row], command: str, offered: int) -> str:
    """Return the Markdown page of the rows, sorted by layer, of so many layers."""
    rows = sorted(rows, key=lambda row: row["layer"])
    of_each = [{**row["versions"], "device": device(row)} for row in rows]
    told = {key: [kind[key] for kind in of_each if kind.get(key)] for key in (*PACKAGES, "device")}
    dates = sorted({row["date"] for row in rows})
    sound = sum(bool(row["check"]["sound"]) for row in rows)
    ok = sum(row["run"]["status"] == "ok" for row in rows)
    left = f" ({offered - len(rows)} are still to be tried)" if offered > len(rows) else ""
    lines = [
        "# Layers of flash-linear-attention",
        "",
        f"Written by `{command}`: each layer through `mechbench {' '.join(CHECK)}` and",
        f"`mechbench {' '.join(RUN)}`.",
        f"{' to '.join(dict.fromkeys((dates[0], dates[-1])))}; {commonest(told)}.",
        "",
        f"{sound} of {len(rows)} layers pass the check, {ok} train{left}. `seconds` is for both,",
        "with compiling. Several ran at once, each kernel in the first of its configurations:",
        "tokens/s and seconds are no measurements of speed.",
        "1 M tokens are few: the accuracy says whether a layer trains, not how far it comes.",
        "",
        "| layer | check | accuracy (chance) | tokens/s | seconds |",
        "|---|---|---|--:|--:|",
        *map(table_row, rows),
        "",
    ]
    return "\n".join(lines)


def device(row: Row) -> str | None:
    """Return the GPU that a layer ran on, if it came that far."""
    found: str | None = row["check"].get("device") or row["run"].get("device")
    return found


def commonest(told: dict[str, list[str]]) -> str:
    """Return what most rows agree on, as text."""
    return ", ".join(
        Counter(values).most_common(1)[0][0] if key == "device" else
        f"{key} {Counter(values).most_common(1)[0][0]}"
        for key, values in told.items() if values
    )  # fmt: skip


def table_row(row: Row) -> str:
    """Return the line of a layer."""
    check, run = row["check"], row["run"]
    verdict = "passed" if check["sound"] else cell(check["reason"])
    if "accuracy" in run and run["status"] == "ok":
        low, high = run["ci_low"], run["ci_high"]
        score = f"{run['accuracy']:.3f} [{low:.3f}, {high:.3f}] ({run['chance']:.3f})"
    elif run["reason"] == check["reason"]:
        score = "the same"
    else:
        score = cell(run["reason"] or run["status"])
    speed = f"{run['tokens_per_s']:,.0f}" if run.get("tokens_per_s") else ""
    return f"| `{row['layer']}` | {verdict} | {score} | {speed} | {row['seconds']:.0f} |"


def cell(text: str) -> str:
    """Return a reason as one line that a table holds."""
    line = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    return line if len(line) <= WIDEST else line[: WIDEST - 3] + "..."


def try_all(
    names: Sequence[str],
    one: Callable[[str, str], Row],
    keep: Callable[[Row], None],
    *,
    jobs: int,
    devices: Sequence[str],
    stop_after: float | None = None,
) -> None:
    """Call `one(name, gpu)` for every name, `jobs` at once, and `keep` what each returns.

    Raises:
        TimeoutError: not all have ended after `stop_after` seconds; nothing is kept of these.
    """
    free: SimpleQueue[str] = SimpleQueue()
    for i in range(jobs):
        free.put(devices[i % len(devices)])
    stopped = threading.Event()

    def with_gpu(name: str) -> Row:
        gpu = free.get()
        try:
            return {} if stopped.is_set() else one(name, gpu)
        finally:
            free.put(gpu)

    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(with_gpu, name) for name in names]
        try:
            for done in as_completed(waiting, stop_after):
                keep(done.result())
        finally:  # also where the time is over, or somebody interrupts
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            while any(future.running() for future in waiting):
                for process in list(RUNNING):
                    end(process)
                time.sleep(0.1)


@click.command()
@click.option(
    "--out", default="build/fla-layers", show_default=True, type=click.Path(path_type=Path)
)
@click.option(
    "--page", "file", default=PAGE, type=click.Path(path_type=Path), help="Markdown file."
)
@click.option("--jobs", default=4, show_default=True, type=click.IntRange(1), help="At once.")
@click.option(
    "--limit",
    "limit_s",
    default=150.0,
    show_default=True,
    help="Seconds of a check, and of a run.",
)
@click.option("--stop-after", type=float, help="Seconds after which what still runs is given up.")
@click.option("--device", default="cuda", show_default=True)
@click.option("--layer", "chosen", multiple=True, help="Only this one (repeatable).")
@click.option("--again", is_flag=True, help="Try those anew that failed.")
def main(
    out: Path,
    file: Path,
    jobs: int,
    limit_s: float,
    stop_after: float | None,
    device: str,
    chosen: tuple[str, ...],
    again: bool,
) -> None:
    """Try every layer of flash-linear-attention; write a table of what came out."""
    out.mkdir(parents=True, exist_ok=True)
    lines = out / "layers.jsonl"
    names = layers()
    if not names:
        raise click.ClickException("flash-linear-attention is not installed")
    found = {name: row for name, row in stored(lines).items() if name in names}
    wanted = chosen or names
    names_left = [n for n in wanted if n not in found or (again and not fine(found[n]))]
    command = shlex.join(["python", "scripts/try_fla_layers.py", *sys.argv[1:]])

    def keep(row: Row) -> None:
        with lines.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        found[row["layer"]] = row
        write_text(file, page(list(found.values()), command, len(names)))
        print(table_row(row), flush=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    try:
        try_all(
            names_left,
            lambda name, gpu: attempt(name, out, device, gpu, limit_s),
            keep,
            jobs=jobs,
            devices=gpus(),
            stop_after=stop_after,
        )
    except TimeoutError:
        print(f"{len(set(wanted) - found.keys())} layers are left: the same command goes on")
    if found:
        write_text(file, page(list(found.values()), command, len(names)))
    print(f"{sum(map(fine, found.values()))} of {len(found)} layers: {file}")


if __name__ == "__main__":
    main()
