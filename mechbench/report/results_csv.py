"""Reading and writing leaderboards/NAME/results.csv, all that a leaderboard stores. No torch.

Tidy: one row a cell and evaluation length. It is the only source of what `mechbench leaderboard
build` makes. Empty means unknown; lists, tables, true and false are JSON. Columns, in this order:

    schema_version, cell_id, status ("ok", "diverged", "out-of-memory", "error", or "not-run" for a
    cell that its suite plans and nobody ran), reason
    the configuration: every field of mechbench.record.config.Config under its name
    eval_seqlen, n, correct, accuracy, ci_low, ci_high, dense_n, dense_accuracy, shortcuts,
    required_context, non_finite: the evaluation, as in mechbench/record/results.py; empty if not
    scored there. Shortcuts and required context are computed by `leaderboard submit`, not handed in
    chance, solved, causal, stop, validation_accuracy, parameters, steps, train_tokens,
    excluded_examples, micro_batch_size, flops_per_token, tokens_per_s, peak_memory_mib,
    fft_conv_backend, outcome (JSON): the result, as in mechbench/record/results.py
    seconds_train, seconds_evaluate, seconds_total
    mechbench, torch, python, platform, device, git_commit, date, command: its provenance
"""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from mechbench.catalogue.settings import path_of
from mechbench.errors import ConfigError, ResultError
from mechbench.record.config import ADDED, Config
from mechbench.record.files import write_text
from mechbench.record.results import RESULT, SCHEMA_VERSION, find_results
from mechbench.report.escape import csv_text, from_csv_cell, plain
from mechbench.report.rows import Row, rows_of

FILE = "results.csv"
_HEAD = ("schema_version", "cell_id", "status", "reason")
_CONFIG = tuple(f.name for f in fields(Config))
_EVALUATION = (
    "n", "correct", "accuracy", "ci_low", "ci_high", "dense_n", "dense_accuracy", "shortcuts",
    "required_context", "non_finite",
)  # fmt: skip
_RESULT = (
    "chance", "solved", "causal", "stop", "validation_accuracy", "parameters", "steps",
    "train_tokens", "excluded_examples", "micro_batch_size", "flops_per_token", "tokens_per_s",
    "peak_memory_mib", "fft_conv_backend", "outcome",
)  # fmt: skip
# Columns that tables from before lack; absent where unknown or 0.
_LATER = ("non_finite", "outcome")
_SECONDS = ("train", "evaluate", "total")
_PROVENANCE = (
    "mechbench", "torch", "python", "platform", "device", "git_commit", "date", "command",
)  # fmt: skip
COLUMNS = (
    *_HEAD, *_CONFIG, "eval_seqlen", *_EVALUATION, *_RESULT, *(f"seconds_{s}" for s in _SECONDS),
    *_PROVENANCE,
)  # fmt: skip
# Columns whose value is a text; in all others it is JSON.
_TEXTS = {
    "cell_id", "status", "reason", "stop", "fft_conv_backend", *_PROVENANCE,
    *(f.name for f in fields(Config) if f.type == "str"),
}  # fmt: skip


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write `rows` as CSV, in an order that does not depend on theirs.

    Raises:
        ResultError: the file cannot be written.
    """
    write_text(path, csv_text(sorted((_flat(row) for row in rows), key=_order), COLUMNS))


def stored_files(*paths: Path | str) -> tuple[list[Path], list[Path]]:
    """Return every result.json at or below `paths`, and every table that `write_rows` wrote.

    Raises:
        ConfigError: one of `paths` is not a path.
        ResultError: a path does not exist, or there is neither below any.
    """
    found = find_results(*paths, names=(RESULT, FILE))
    tables = [path for path in found if path.suffix == ".csv"]
    # Others may have a results.csv of their own; who names it is told what is wrong with it.
    named = {path_of("path", path) for path in paths}
    ours = [path for path in tables if path in named or _is_ours(path)]
    files = [path for path in found if path.suffix != ".csv"]
    if not files and not ours:
        raise ResultError(f"no {RESULT} or leaderboard below {', '.join(map(str, paths))}")
    return files, ours


def _is_ours(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.readline().startswith(",".join(_HEAD))
    except OSError:
        return False


def read_rows(path: Path) -> list[Row]:
    """Read what `write_rows` wrote.

    Raises:
        ResultError: as `read_results`.
    """
    try:
        return [row for data in read_results(path) for row in rows_of(data)]
    except (ConfigError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise ResultError(f"{path} is damaged: {error}") from error


def read_results(path: Path) -> list[dict[str, Any]]:
    """Read the results that `write_rows` wrote the rows of.

    Raises:
        ResultError: unreadable, columns missing or unknown, or a damaged row or result; its line
            or cell is named.
    """
    from mechbench.record.schema import result_faults

    results: dict[str, dict[str, Any]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            odd = sorted((set(header) ^ set(COLUMNS)) - {*ADDED, *_LATER})
            if odd or len(header) != len(set(header)):
                raise ResultError(f"{path}: columns missing or unknown: {', '.join(odd)}")
            for cells in reader:
                try:
                    _gather(dict(zip(header, cells, strict=True)), results)
                except (ValueError, KeyError) as error:
                    raise ResultError(f"{path}:{reader.line_num}: {error}") from error
        for cell_id, data in results.items():
            if found := result_faults(data, planned=True):
                raise ResultError(f"{path} is damaged: cell {cell_id}: {found[0]}")
        return list(results.values())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ResultError(f"{path} cannot be read: {error}") from error
    except (ConfigError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise ResultError(f"{path} is damaged: {error}") from error


def _flat(row: Row) -> dict[str, str]:
    data, config = row.data, row.config
    values: dict[str, Any] = {name: getattr(config, name) for name in _CONFIG}
    # The path of a plugin file means nothing on another machine.
    values["plugins"] = {plain(Path(p).name): digest for p, digest in config.plugins.items()}
    values |= {name: data.get(name) for name in (*_HEAD, *_RESULT)}
    values |= {name: (row.evaluation or {}).get(name) for name in _EVALUATION}
    values |= {f"seconds_{s}": (data.get("seconds") or {}).get(s) for s in _SECONDS}
    values |= {name: data["provenance"].get(name) for name in _PROVENANCE}
    values["eval_seqlen"] = row.eval_seqlen
    return {name: _text(name, values[name]) for name in COLUMNS}


def _text(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name in _TEXTS:
        return str(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _order(at: Mapping[str, str]) -> tuple[Any, ...]:
    return (
        at["task"], at["task_options"], int(at["vocab_size"]), int(at["seqlen"]), at["operator"],
        at["operator_options"], float(at["lr"]), int(at["seed"]), at["cell_id"],
        int(at["eval_seqlen"]),
    )  # fmt: skip


def _gather(cells: dict[str, str], results: dict[str, dict[str, Any]]) -> None:
    """Add one row to the result that it belongs to."""
    values = {name: _value(name, text) for name, text in cells.items()}
    if values["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema version {values['schema_version']}: expected {SCHEMA_VERSION}")
    data = results.get(values["cell_id"])
    if data is None:
        data = results[values["cell_id"]] = {
            name: values[name]
            for name in (*_HEAD, *_RESULT)
            if name not in _LATER or values.get(name)
        }
        data["config"] = {name: values[name] for name in _CONFIG if name in values}
        data["seconds"] = {s: values[f"seconds_{s}"] for s in _SECONDS}
        data["provenance"] = {name: values[name] for name in _PROVENANCE}
        data["evaluations"] = []
    if values["n"] is not None:
        evaluation = {
            name: values[name] for name in _EVALUATION if name not in _LATER or values.get(name)
        }
        data["evaluations"].append({"seqlen": values["eval_seqlen"], **evaluation})


def _value(name: str, text: str) -> Any:
    if name in _TEXTS:
        return from_csv_cell(text) or None
    return _parsed(text) if text else None


@functools.lru_cache(maxsize=1 << 14)  # most values stand in many rows; nobody changes them
def _parsed(text: str) -> Any:
    return json.loads(text)
