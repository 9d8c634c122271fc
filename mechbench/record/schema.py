"""What a stored result must look like, field by field, schema version 1. No torch.

pydantic takes a while to load, so this module is imported only where a file is read. Unknown fields
are kept but not checked: a later version may have stored them.
"""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from mechbench.errors import ConfigError
from mechbench.record.config import ADDED, Config
from mechbench.record.outcome import outcome_faults

_MOST = 2**63 - 1  # what NumPy and pandas hold
_FEW_FAULTS = 20

Count = Annotated[int, Field(ge=0, le=_MOST)]
Length = Annotated[int, Field(ge=1, le=_MOST)]
Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Line = Annotated[str, Field(max_length=10_000)]
Reason = Annotated[str, Field(max_length=100_000)]
Id = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Window = Annotated[str, Field(pattern=r"^[0-9]{1,18}$")]
Status = Literal["ok", "diverged", "out-of-memory", "error", "not-run"]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Evaluation(_Record):
    """The score at one length. `non_finite` counts scored positions without a finite output."""

    seqlen: Length
    n: Count
    correct: Count
    accuracy: Share
    ci_low: Share
    ci_high: Share
    dense_n: Count
    dense_accuracy: Share
    shortcuts: dict[Name, Share]
    required_context: dict[Window, Share]
    non_finite: Count | None = None


class StoredOutcome(_Record):
    """What became of the cell, as `mechbench.record.outcome.CellOutcome`."""

    kind: Literal["solved", "censored", "diverged", "failed"]
    tokens: Count
    mark: Share
    accuracy: Share | None = None
    positions: Count | None = None
    validations: Count = 0
    slope: float | None = None
    slope_low: float | None = None
    slope_high: float | None = None
    trend: Literal["rising", "flat"] | None = None


class Seconds(_Record):
    """Durations over all resumed parts; None where not measured."""

    train: Amount | None = None
    evaluate: Amount | None = None
    total: Amount | None = None


class Provenance(_Record):
    """Where a result comes from."""

    mechbench: Line | None = None
    torch: Line | None = None
    python: Line | None = None
    platform: Line | None = None
    device: Line | None = None
    git_commit: Line | None = None
    date: Line | None = None
    command: Reason | None = None  # may name hundreds of files


def _hinted(config_type: type) -> dict[str, Any]:
    """Return Config's fields for a pydantic model; those that old versions lacked are optional.

    Config itself checks what a field means; here only the JSON types are checked.
    """
    hints = typing.get_type_hints(config_type)
    whole = Annotated[int, Field(ge=-_MOST, le=_MOST), BeforeValidator(_whole)]
    as_json = {str: Line, int: whole}
    out: dict[str, Any] = {}
    for field in dataclasses.fields(config_type):
        hint = as_json.get(hints[field.name], hints[field.name])
        if typing.get_origin(hint) is tuple:
            hint = Annotated[hint, BeforeValidator(_tuples)]
        out[field.name] = (hint, ADDED.get(field.name, ...))
    return out


def _whole(value: Any) -> Any:
    """Take 2e4 for 20000, as older versions stored what they were given."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


StoredConfig = create_model("StoredConfig", __base__=_Record, **_hinted(Config))


class StoredResult(_Record):
    """result.json; optional fields are absent from results of older versions."""

    schema_version: Literal[1]
    cell_id: Id
    status: Status
    reason: Reason | None = None
    config: StoredConfig  # type: ignore[valid-type]  # made above
    chance: Share
    train_is_test: bool | None = None
    evaluations: Annotated[list[Evaluation], Field(max_length=10_000)]
    solved: bool | None = None
    outcome: StoredOutcome | None = None
    causal: bool | None = None
    stop: Name | None = None
    validation_accuracy: Share | None = None
    parameters: Count | None = None
    steps: Count | None = None
    train_tokens: Count | None = None
    excluded_examples: Count | None = None
    micro_batch_size: Count | None = None
    flops_per_token: Amount | None = None
    tokens_per_s: Amount | None = None
    peak_memory_mib: Amount | None = None
    seconds: Seconds | None = None
    fft_conv_backend: Line | None = None
    kernels: dict[Name, Line] | None = None
    provenance: Provenance


def result_faults(data: Any, *, planned: bool = False) -> list[str]:
    """Return what is wrong with a result, one line per field; an empty list if it is sound.

    Beyond types and ranges it checks that the id is the hash of the configuration, that no length
    is scored twice and, if the status is "ok", that every length of the configuration is scored,
    that accuracies follow from the counts, and that the outcome fits the status.

    Args:
        data: as read from JSON.
        planned: whether the status "not-run" is allowed, as in a leaderboard.
    """
    found = _faults(StoredResult, data)
    if found:
        return found
    if data["status"] == "not-run" and not planned:
        return ["status is 'not-run': expected that of a run"]
    try:
        config = Config.from_dict(data["config"])
        if data["cell_id"] not in (config.cell_id, _as_given(data["config"]).cell_id):
            return [f"cell_id is {data['cell_id']}: the configuration's is {config.cell_id}"]
    except ConfigError as error:
        return [f"config: {error}"]
    return [*_coverage(data, config), *_counts(data["evaluations"]), *outcome_faults(data)]


def stored_config(data: Any) -> Config:
    """Rebuild the configuration from what `Config.to_dict` gave, its types checked.

    Raises:
        ConfigError: a field is missing, unknown, of another type or out of range.
    """
    found = _faults(StoredConfig, data)
    if found:
        raise ConfigError(found[0])
    config = Config.from_dict(data)
    if not config.eval_seqlens:
        raise ConfigError("eval_seqlens is []: expected at least one length")
    return config


def _as_given(data: dict[str, Any]) -> Config:
    """Return the configuration with the types it was stored with, which its id may rest on."""
    config = object.__new__(Config)
    for field in dataclasses.fields(Config):
        object.__setattr__(config, field.name, data.get(field.name, ADDED.get(field.name)))
    return config


def _coverage(data: dict[str, Any], config: Config) -> list[str]:
    lengths = [evaluation["seqlen"] for evaluation in data["evaluations"]]
    if len(set(lengths)) != len(lengths):
        return [f"evaluations are at {_short(lengths)}: expected each length once"]
    absent = sorted({config.seqlen, *config.eval_seqlens} - set(lengths))
    if data["status"] == "ok" and absent:
        return [f"evaluations lack seqlen {absent[0]}: expected {list(config.eval_seqlens)}"]
    return []


def _counts(evaluations: list[dict[str, Any]]) -> list[str]:
    found = []
    for i, e in enumerate(evaluations):
        if e["correct"] > e["n"]:
            found.append(
                f"evaluations[{i}].correct is {e['correct']}: expected at most n, {e['n']}"
            )
        elif not math.isclose(e["accuracy"], e["correct"] / max(1, e["n"]), abs_tol=1e-6):
            found.append(
                f"evaluations[{i}].accuracy is {e['accuracy']}: {e['correct']} of {e['n']} give "
                f"{e['correct'] / max(1, e['n'])}"
            )
    return found


def _faults(model: type[BaseModel], data: Any) -> list[str]:
    try:
        model.model_validate(data)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False)
        return [_line(fault) for fault in faults[:_FEW_FAULTS]]
    except RecursionError:
        return ["it is nested too deeply"]
    return []


def _line(fault: Any) -> str:
    where = ""
    for part in fault["loc"]:
        where += f"[{part}]" if isinstance(part, int) else f".{part}"
    where = _short(where.lstrip("."), quoted=False) or "it"
    if fault["type"] == "missing":
        return f"{where} is missing"
    if fault["type"] in ("model_type", "dict_type"):
        expected = "expected an object"
    else:
        expected = re.sub(r"^(Input|\w+) should (be|have|match) ?", "expected ", fault["msg"])
    return f"{where} is {_short(fault['input'])}: {expected}"


def _short(value: Any, *, quoted: bool = True, limit: int = 60) -> str:
    """Return a value as a few characters of one line."""
    if isinstance(value, dict) and len(value) > 3:
        return f"an object of {len(value)} fields"
    try:
        text = repr(value) if quoted else value.encode("unicode_escape").decode()
    except (RecursionError, ValueError):  # a number of thousands of digits
        return "too large to show"
    return text if len(text) <= limit else text[:limit] + "..."
