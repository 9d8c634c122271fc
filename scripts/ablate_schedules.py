"""Compare schedules of the learning rate: tokens to solve, over operators, tasks, rates and seeds.

    python scripts/ablate_schedules.py --out ablation.jsonl \
        --operator hyena --operator attention --task recall,seqlen=128,vocab_size=20 --jobs 4
    python scripts/ablate_schedules.py --summary ablation.jsonl

Every operator, task and schedule is trained at all rates with the seeds of --tune-seed, then at its
best of them (solved soonest; else with the highest accuracy) with the seeds of --seed, which alone
are reported. A cell ends when it is solved, diverged, or at --budget tokens; then its line is
written to --out, and the same command goes on where it was stopped.

A cell trains as `mechbench run` does, but for the schedule, and for two rules that may not depend
on a budget here: a stage of the curriculum ends after --stage-tokens at the latest, and validation
comes every --validate-tokens of the last stage, later every twentieth part of all tokens. Several
--jobs on one GPU need NVIDIA's MPS to run at the same time (nvidia-cuda-mps-control -d).

Operators, tasks and schedules take options after commas: "hyena,window_shift=0.1",
"recall,seqlen=128,vocab_size=20,min_distance=64", "averaged,sharpness=4",
"cosine,budget_tokens=20000000" (a run of its own for that budget; without, --budget is it).
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout, uninstalled
sys.path.insert(0, str(Path(__file__).resolve().parent))

from schedule_cell import SCHEDULES, Cell, Limits, attempt, make_run, make_schedule
from schedule_table import MARKS, best_lr, key_of, read, table

from mechbench.errors import MechbenchError

LRS = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)


def work(cells: list[Cell], limits: Limits, jobs: int, out: Path) -> bool:
    """Train what is not yet in `out`, a line for each as it ends; return whether all was done."""
    done = {key_of(row["cell"]) for row in read(out) if "error" not in row}
    cells = [cell for cell in cells if key_of(asdict(cell)) not in done]
    if not cells or time.time() > limits.deadline:
        return not cells
    whole = True
    for number, (cell, row) in enumerate(results_of(cells, limits, jobs), 1):
        whole &= row is not None and "error" not in row
        if row is None:
            continue
        append(out, json.dumps(row))
        if "error" in row:
            told = row["error"]
        else:
            verdict = "solved" if row["solved_tokens"] else "not solved"
            told = f"{verdict}, {row['tokens'] / 1e6:.2f} M tokens, {row['seconds']:.0f} s"
        name = f"{cell.operator} {cell.task} {cell.schedule} lr {cell.lr:g} seed {cell.seed}"
        click.echo(f"[{number}/{len(cells)}] {name}: {told}", err=True)
    return whole


def results_of(
    cells: list[Cell], limits: Limits, jobs: int
) -> Iterator[tuple[Cell, dict[str, Any] | None]]:
    """Give cells with their lines as they end, in one process or several."""
    if jobs == 1:
        for cell in cells:
            yield attempt(cell, limits)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context) as pool:
        futures = [pool.submit(attempt, cell, limits) for cell in cells]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def append(path: Path, line: str) -> None:
    """Append a line, also to a file whose last one was cut off."""
    with path.open("ab+") as file:
        if file.seek(0, 2):
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(line.encode() + b"\n")


@click.command()
@click.option("--summary", type=click.Path(exists=True, path_type=Path), help="Print its tables.")
@click.option("--mark", "marks", multiple=True, type=float, default=MARKS, help="Tokens, M.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("ablation.jsonl"))
@click.option("--operator", "operators", multiple=True, default=("hyena", "attention"))
@click.option("--task", "tasks", multiple=True, default=("recall,seqlen=128,vocab_size=20",))
@click.option("--schedule", "schedules", multiple=True, default=tuple(SCHEDULES))
@click.option("--lr", "lrs", multiple=True, type=float, default=LRS)
@click.option("--seed", "seeds", multiple=True, type=int, default=(0, 1, 2))
@click.option(
    "--tune-seed",
    "tune_seeds",
    multiple=True,
    type=int,
    default=(100,),
    help="-1: none; every rate is then trained with every seed.",
)
@click.option("--budget", default=1e8, help="Most tokens of a cell.")
@click.option("--stage-tokens", default=4e6, help="Most tokens of a stage but the last.")
@click.option("--validate-tokens", default=2.5e5, help="From validation to validation, at first.")
@click.option("--curriculum", type=click.Choice(("auto", "none")), default="auto")
@click.option("--d-model", default=64)
@click.option("--n-layers", default=2)
@click.option("--device", default="auto")
@click.option("--dtype", default="auto")
@click.option("--jobs", default=1, help="Processes at a time.")
@click.option("--stop-after", default=float("inf"), help="Seconds; what is not done then is left.")
def main(
    summary: Path | None,
    marks: tuple[float, ...],
    out: Path,
    operators: tuple[str, ...],
    tasks: tuple[str, ...],
    schedules: tuple[str, ...],
    lrs: tuple[float, ...],
    seeds: tuple[int, ...],
    tune_seeds: tuple[int, ...],
    budget: float,
    stage_tokens: float,
    validate_tokens: float,
    curriculum: str,
    d_model: int,
    n_layers: int,
    device: str,
    dtype: str,
    jobs: int,
    stop_after: float,
) -> None:
    """Compare schedules of the learning rate by tokens to solve."""
    if summary is not None:
        click.echo(table(read(summary), marks), nl=False)
        return
    limits = Limits(device, dtype, time.time() + stop_after)
    tune_seeds = tuple(seed for seed in tune_seeds if seed >= 0)
    if both := set(tune_seeds) & set(seeds):
        raise click.UsageError(f"seed {min(both)} would be reported and chosen on")
    kinds = list(itertools.product(operators, tasks, schedules))

    def cell(kind: tuple[str, str, str], lr: float, seed: int, tuning: bool) -> Cell:
        return Cell(
            *kind, lr, seed, tuning, int(budget), int(stage_tokens), int(validate_tokens),
            curriculum, d_model, n_layers,
        )  # fmt: skip

    try:
        # What is wrong is said before anything runs.
        for schedule in schedules:
            make_schedule(schedule, int(budget))
        for operator, task, lr in itertools.product(operators, tasks, lrs):
            make_run(cell((operator, task, schedules[0]), lr, 0, False), limits)
    except MechbenchError as error:
        raise click.UsageError(str(error)) from error
    out.parent.mkdir(parents=True, exist_ok=True)
    tuning, chosen_on = bool(tune_seeds), tune_seeds or seeds
    asked = [cell(k, lr, seed, tuning) for seed in chosen_on for k in kinds for lr in lrs]
    whole = work(asked, limits, jobs, out)
    if tuning:
        wanted = {key_of(asdict(c)) for c in asked}
        tuned = [row for row in read(out) if key_of(row["cell"]) in wanted and "error" not in row]
        by_kind = {kind: [row for row in tuned if kind_of(row) == kind] for kind in kinds}
        best = {
            kind: best_lr(rows)
            for kind, rows in by_kind.items()
            if len(rows) == len(lrs) * len(tune_seeds)
        }
        again = [cell(kind, best[kind], seed, False) for seed in seeds for kind in best]
        whole = work(again, limits, jobs, out) and whole
    click.echo("all done" if whole else "not all done: the same command goes on", err=True)


def kind_of(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["cell"]["operator"], row["cell"]["task"], row["cell"]["schedule"]


if __name__ == "__main__":
    main()
