"""Stored results: their schema, writing and reading. No torch.

`runs/<cell id>/result.json` is the only source of tables and plots. Schema, version 1:

    schema_version   1
    cell_id          hash of `config`
    status           "ok", "diverged", "out-of-memory" or "error"; `reason` says why not "ok"
    config           the resolved configuration, mechbench.record.config.Config
    chance           accuracy of a uniform guess
    evaluations      one per length: seqlen, n, correct, accuracy, ci_low, ci_high (95% Wilson
                     interval over the examples' scored positions; if answers are numbers,
                     accuracy is the share predicted within 0.1 standard deviations), dense_n,
                     dense_accuracy (every predictable position), shortcuts {name: accuracy},
                     required_context {W: accuracy}, and perhaps non_finite: scored positions
                     whose outputs were not finite, a failure at that length if there are any
    train_is_test    by definition the task asks the same in training and test (memorisation):
                     accuracy says what was remembered, and no example was excluded
    solved           validation accuracy reached 0.995 twice in a row, on fixed steps; such a run,
                     and a diverged one, ends so with every larger budget
    outcome          what became of the cell, by mechbench.record.outcome.CellOutcome: kind
                     ("solved", "censored", "diverged" or "failed"), tokens (to solve it, or
                     trained on), mark, accuracy, positions, validations, and of a
                     censored cell slope, slope_low, slope_high (accuracy per doubling of tokens
                     over their last half, 95% interval), dense_slope (the same over every
                     predictable position) and trend ("rising", "flat", or null where it cannot be
                     told); absent from results of older versions, whose other
                     fields imply it but for the slope
    causal           outputs did not change when later tokens did; null if not measured
    stop             "solved", "budget", "diverged", "out-of-memory" or "error"
    validation_accuracy  of the trained model, used to choose learning rates; null if there was
                     none
    train_tokens     what it was trained on; config.budget_tokens is what was asked for. A larger
                     budget carries the run on and replaces the result
    parameters, steps, excluded_examples (training examples dropped because they
                     occur in an evaluation set), micro_batch_size
    flops_per_token  forward and backward, by torch's flop counter, FFTs counted as 2.5 n log2 n;
                     of causal attention half of its products, until protocol 2 all of them
    tokens_per_s     training only, median of the logged intervals
    peak_memory_mib  the allocator's peak on CUDA, the process's on a CPU; null of cells that ran
                     beside others in one process
    seconds          {"train": .., "evaluate": .., "total": ..}, over all resumed parts
    fft_conv_backend the backend in use, null if none was
    kernels          {op: "triton", "torch", "fla" or several}, what ran of the ops that have
                     kernels; absent from results of older versions
    provenance       mechbench, torch and python version, platform, device, git commit, date,
                     command

What is checked on reading, field by field, is in mechbench/record/schema.py.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechbench.catalogue.settings import path_of
from mechbench.errors import ConfigError, ResultError
from mechbench.record.files import set_aside, write_text
from mechbench.record.outcome import outcome_of

if TYPE_CHECKING:
    from mechbench.record.config import Config

SCHEMA_VERSION = 1
RESULT = "result.json"  # in the folder of a run
STATUSES = ("ok", "diverged", "out-of-memory", "error")
RETRIED = ("error", "out-of-memory")  # statuses that may differ on another machine or another day
NOT_RUN = "not-run"  # status of a planned cell, in leaderboards only
_LARGEST = 2**26  # most bytes of a file to read: a thousand times a usual result


@dataclass(frozen=True)
class Result:
    """A stored result, read-only; `data` is the whole of result.json."""

    path: Path
    data: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        """Give the top-level fields of result.json as attributes."""
        # Through __dict__: while being copied, the object has no `data` yet.
        data = self.__dict__.get("data", {})
        if name not in data:
            raise AttributeError(f"result has no field {name!r}")
        return data[name]

    def __repr__(self) -> str:
        """Return two lines: what was run, what came of it and where it is stored."""
        config, told = self.data["config"], outcome_of(self.data)
        head = f"{config['operator']} on {config['task']}"
        what = ", ".join(f"{name} {config[name]}" for name in ("seqlen", "vocab_size", "seed"))
        scored = [e for e in self.data["evaluations"] if e["seqlen"] == config["seqlen"]]
        found = self.data["status"]
        if scored and found == "ok":
            found = f"accuracy {scored[0]['accuracy']:.2%}"
        if told is not None:
            found += f", {told.kind} after {told.tokens:,} tokens"
        return f"Result({head}, {what}: {found};\n       {self.path})"

    def accuracy(self, seqlen: int | None = None) -> float:
        """Return the test accuracy at `seqlen`, by default the trained length.

        Raises:
            ResultError: that length was not evaluated.
        """
        wanted = self.data["config"]["seqlen"] if seqlen is None else seqlen
        for evaluation in self.data["evaluations"]:
            if evaluation["seqlen"] == wanted:
                return float(evaluation["accuracy"])
        lengths = [e["seqlen"] for e in self.data["evaluations"]]
        raise ResultError(f"no evaluation at seqlen {wanted}: there are {lengths}")


def answers(data: Mapping[str, Any], budget_tokens: int) -> bool:
    """Return whether a stored result says how the cell stands at a budget.

    It does once the cell is solved or has diverged, whatever the budget; else it says so only of
    budgets up to its own, and a larger one carries the cell on.
    """
    if data["status"] in RETRIED:
        return False
    return is_decided(data) or int(data["config"]["budget_tokens"]) >= budget_tokens


def is_decided(data: Mapping[str, Any]) -> bool:
    """Return whether more training would change nothing: the cell is solved or has diverged."""
    return data["status"] == "diverged" or bool(data.get("solved"))


def wilson_interval(correct: float, n: float, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 percent Wilson score interval of a proportion; (0, 1) for n = 0.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if n == 0:
        return 0.0, 1.0
    p, zz = correct / n, z * z
    centre = (p + zz / (2 * n)) / (1 + zz / n)
    half = z / (1 + zz / n) * math.sqrt(p * (1 - p) / n + zz / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write `data` as indented JSON, atomically; NaN is refused.

    Raises:
        ResultError: the file cannot be written.
    """
    write_text(path, _json_text(data))


def write_json_once(path: Path, data: dict[str, Any]) -> None:
    """Write as `write_json`, unless this very file is there: to write is to wait for the disk.

    Raises:
        ResultError: the file cannot be written.
    """
    text = _json_text(data)
    with contextlib.suppress(OSError):
        if path.is_file() and path.read_bytes() == text.encode():
            return
    write_text(path, text)


def _json_text(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    """Read an untrusted JSON file.

    Raises:
        ResultError: it cannot be read, is not JSON or not a file, or names a field twice.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("expected a file")  # a pipe would keep its reader waiting
        if path.exists() and path.stat().st_size > _LARGEST:
            raise ValueError(f"it is larger than {_LARGEST // 2**20} MiB")
        data = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_object)
        # Python reads NaN, infinities and lone surrogates, which cannot be written again.
        json.dumps(data, allow_nan=False, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ResultError(f"{path} is corrupt: it is nested too deeply") from error
    except (OSError, ValueError) as error:
        text = " ".join(str(error).split())[:300]
        raise ResultError(f"{path} is corrupt: {text}") from error
    return data


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"field {twice[:60]!r} is given twice")
    return data


def read_result(path: Path, cell_id: str | None = None) -> Result:
    """Read and check one result.json; `cell_id`, if given, is the cell it must belong to.

    Raises:
        ResultError: not JSON, of another schema version or cell, or a field is wrong; the first
            such field is named.
    """
    from mechbench.record.schema import result_faults

    data = read_json(path)
    if not isinstance(data, dict) or data.get("schema_version") != SCHEMA_VERSION:
        raise ResultError(f"{path} is no result of schema version {SCHEMA_VERSION}")
    faults = result_faults(data)
    if faults:
        raise ResultError(f"{path} is damaged: {faults[0]}")
    if cell_id is not None and data["cell_id"] != cell_id:
        raise ResultError(f"{path} is of cell {data['cell_id']}: expected {cell_id}")
    return Result(path, data)


def read_config(path: Path) -> Config:
    """Read a run's config.json.

    Raises:
        ResultError: not JSON, or a field is missing, unknown, of another type or out of range.
    """
    from mechbench.record.schema import stored_config

    if not path.exists():
        raise ResultError(f"{path} does not exist: expected the folder of a run")
    try:
        return stored_config(read_json(path))
    except ConfigError as error:
        raise ResultError(f"{path} is damaged: {error}") from error


def read_or_set_aside(path: Path, cell_id: str | None = None) -> tuple[Result | None, str | None]:
    """Return (result, None), (None, warning) after renaming a damaged file, or (None, None)."""
    if not path.exists():
        return None, None
    try:
        return read_result(path, cell_id), None
    except ResultError as error:
        return None, f"{error}; set aside as {set_aside(path).name}"


def find_results(*paths: Path | str, names: Sequence[str] = (RESULT,)) -> list[Path]:
    """Return every file of these names at or below `paths`, sorted.

    Raises:
        ConfigError: one of `paths` is not a path.
        ResultError: a path does not exist, or there is no such file below any.
    """
    found: set[Path] = set()
    for path in (path_of("path", path) for path in paths):
        if not path.exists():
            raise ResultError(f"{path} does not exist: expected a folder of results")
        if path.is_file():
            found.add(path)
        else:
            found.update(file for file in path.rglob("result*") if file.name in names)
    if not found:
        raise ResultError(f"no {' or '.join(names)} below {', '.join(map(str, paths))}")
    return sorted(found)
