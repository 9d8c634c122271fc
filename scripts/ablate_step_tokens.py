"""How many tokens should a step have at full length? Tokens, steps and seconds to solve recall.

    python scripts/ablate_step_tokens.py --operator hyena --operator attention --seqlen 8192 \
        --step-tokens 131072 --step-tokens 524288 --out steps.jsonl
    python scripts/ablate_step_tokens.py --summary steps.jsonl

A cell trains as `mechbench run` does, but that the stages of its curriculum have as many sequences
a step as are --step-tokens, at most 64, where the harness has its own number. Validation comes
every --validate-tokens of full length, so that it costs as much whatever the step. A line is
written to --out as a cell ends, and the same command goes on where it was stopped.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout, uninstalled

import click

import mechbench
from mechbench.errors import MechbenchError
from mechbench.plan import curriculum
from mechbench.record.files import write_text
from mechbench.report.table import markdown_table

KEY = ("operator", "seqlen", "min_distance", "vocab_size", "step_tokens", "lr", "seed")


def sequences(step_tokens: int, seqlen: int) -> int:
    """Return how many sequences are about so many tokens."""
    return min(64, max(1, step_tokens // seqlen))


def trained(cell: Mapping[str, Any], runs: Path, device: str, budget: int, every: int) -> Any:
    """Train a cell; return its line."""
    sizes = {"seqlen": cell["seqlen"], "vocab_size": cell["vocab_size"]}
    options = {"min_distance": cell["min_distance"]}
    with mock.patch.object(curriculum, "step_sequences", partial(sequences, cell["step_tokens"])):
        task = mechbench.make_task("recall", **sizes, **options)
        last = curriculum.stage_costs(task, curriculum.stages(task, "auto", None))[-1]
        result = mechbench.run(
            cell["operator"], "recall", **sizes, task_options=options, lr=cell["lr"],
            seed=cell["seed"], budget_tokens=budget, validate_every=max(1, round(every / last)),
            n_test=256, device=device, out=runs, quiet=True,
        )  # fmt: skip
    data, told = result.data, result.data["outcome"]
    return {
        **cell,
        "status": data["status"],
        "kind": told["kind"],
        "tokens": told["tokens"],
        "accuracy": result.accuracy() if data["evaluations"] else None,
        "steps": data["steps"],
        "curriculum": data["config"]["curriculum"],
        "seconds": data["seconds"]["train"],
        "provenance": {k: data["provenance"][k] for k in ("device", "torch", "date")},
    }


def read(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file; none if there is no file."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def key_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what a cell is."""
    return tuple(row[name] for name in KEY)


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table: of each kind and step the share solved, and medians of what solved it."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in KEY[:-1])].append(row)
    lines = [[*KEY[:-1], "solved", "M tokens", "steps", "seconds"]]
    for key, found in sorted(groups.items()):
        solved = [row for row in found if row["kind"] == "solved"]
        medians = [
            f"{statistics.median(row[name] for row in solved) / size:.{digits}f}" if solved else "-"
            for name, size, digits in (("tokens", 1e6, 2), ("steps", 1, 0), ("seconds", 1, 1))
        ]
        lines.append([*(f"{part}" for part in key), f"{len(solved)} of {len(found)}", *medians])
    return markdown_table(lines)


@click.command()
@click.option("--summary", "shown", type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=Path("steps.jsonl"))
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs-steps"))
@click.option("--operator", "operators", multiple=True, default=("hyena", "attention"))
@click.option("--seqlen", "lengths", multiple=True, type=int, default=(512,))
@click.option("--min-distance", "distances", multiple=True, type=int, default=(0,))
@click.option("--vocab-size", default=30)
@click.option("--step-tokens", "sizes", multiple=True, type=int, default=(1 << 13, 1 << 15))
@click.option("--lr", "lrs", multiple=True, type=float, default=(4e-3,))
@click.option("--seed", "seeds", multiple=True, type=int, default=(0,))
@click.option("--budget", default=30_000_000, help="Tokens, at most.")
@click.option("--validate-tokens", default=1 << 18, help="From validation to validation.")
@click.option("--device", default="auto")
def main(
    shown: Path | None,
    out: Path,
    runs: Path,
    operators: Sequence[str],
    lengths: Sequence[int],
    distances: Sequence[int],
    vocab_size: int,
    sizes: Sequence[int],
    lrs: Sequence[float],
    seeds: Sequence[int],
    budget: int,
    validate_tokens: int,
    device: str,
) -> None:
    """Compare steps of several sizes."""
    if shown is not None:
        click.echo(summary(read(shown)))
        return
    rows = read(out)
    done = {key_of(row) for row in rows}
    axes = (seeds, lengths, distances, lrs, sizes, operators)
    for seed, L, distance, lr, size, operator in itertools.product(*axes):
        cell = dict(zip(KEY, (operator, L, distance, vocab_size, size, lr, seed), strict=True))
        if key_of(cell) in done:
            continue
        try:
            rows.append(row := trained(cell, runs, device, budget, validate_tokens))
            write_text(out, "".join(json.dumps(row) + "\n" for row in rows))
        except MechbenchError as error:
            raise click.ClickException(str(error)) from error
        click.echo(f"{' '.join(map(str, cell.values()))}: {row['kind']}, {row['tokens']} tokens")


if __name__ == "__main__":
    main()
