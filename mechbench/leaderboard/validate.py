"""Can a result that somebody hands in be believed? No torch."""

from __future__ import annotations

import datetime
import math
from typing import Any

from mechbench.errors import ConfigError
from mechbench.results import SCHEMA_VERSION, STATUSES, wilson_interval
from mechbench.spec import PROTOCOL, Config

_ORIGIN = ("mechbench", "torch", "python", "platform", "device", "date", "command")


def faults(data: dict[str, Any]) -> list[str]:
    """Return what is wrong with a result, one line each; an honest one has none.

    Looked at are the schema, the configuration and its hash, the provenance, that every figure
    follows from its counts, and plausibility: an accuracy whose interval lies above what the
    task's own oracle reaches, or below chance, is none.
    """
    if data.get("schema_version") != SCHEMA_VERSION:
        return [f"schema version is {data.get('schema_version')!r}: expected {SCHEMA_VERSION}"]
    try:
        config = Config.from_dict(data["config"])
        return [*_identity(data, config), *_origin(data), *_outcome(data, config)]
    except ConfigError as error:
        return [str(error)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return [f"damaged: {type(error).__name__}: {error}"]


def _identity(data: dict[str, Any], config: Config) -> list[str]:
    found = []
    if data["cell_id"] != config.cell_id:
        found.append(f"cell_id is {data['cell_id']}: the configuration's is {config.cell_id}")
    if config.protocol != PROTOCOL:
        found.append(f"protocol is {config.protocol}: expected {PROTOCOL}")
    if data["status"] not in STATUSES:
        found.append(f"status is {data['status']!r}: expected one of {', '.join(STATUSES)}")
    if data["status"] != "ok" and not data.get("reason"):
        found.append(f"status is {data['status']!r} without a reason")
    return found


def _origin(data: dict[str, Any]) -> list[str]:
    origin = data["provenance"]
    found = [f"provenance lacks {name!r}" for name in _ORIGIN if not origin.get(name)]
    if origin.get("date"):
        try:
            datetime.datetime.strptime(origin["date"], "%Y-%m-%dT%H:%M:%SZ")
        except ValueError:
            found.append(f"provenance has the date {origin['date']!r}: expected UTC, ISO 8601")
    return found


def _outcome(data: dict[str, Any], config: Config) -> list[str]:
    found = []
    lengths = [e["seqlen"] for e in data["evaluations"]]
    if len(set(lengths)) != len(lengths) or not set(lengths) <= set(config.eval_seqlens):
        found.append(f"evaluations at {lengths}: expected {list(config.eval_seqlens)}, once each")
    elif data["status"] == "ok" and set(lengths) != set(config.eval_seqlens):
        found.append(f"evaluations at {lengths} only: expected {list(config.eval_seqlens)}")
    if (data.get("train_tokens") or 0) > config.budget_tokens:
        found.append(
            f"{data['train_tokens']} training tokens: the budget is {config.budget_tokens}"
        )
    needed = ["parameters", "train_tokens", "steps"]
    # Absent from results older than it; selection then counts it as 0.
    needed += ["validation_accuracy"] if data.get("validation_accuracy") is not None else []
    found += [
        f"{name} is {data.get(name)!r}: expected a number"
        for name in needed
        if data["status"] == "ok" and not _finite(data.get(name))
    ]
    chance = data["chance"]
    if not 0 <= chance <= 1:
        found.append(f"chance is {chance}: expected 0 to 1")
    for evaluation in data["evaluations"]:
        where = f"at {evaluation['seqlen']}: "
        found += [where + fault for fault in _evaluation(evaluation, config)]
        if data["status"] == "ok":
            found += [where + fault for fault in _plausible(evaluation, chance)]
    return found


def _evaluation(evaluation: dict[str, Any], config: Config) -> list[str]:
    correct, n = evaluation["correct"], evaluation["n"]
    if not 0 <= correct <= n or n < config.n_test:
        return [f"{correct} of {n} right: expected at least {config.n_test} scored"]
    low, high = wilson_interval(correct, n)
    expected = {"accuracy": correct / n, "ci_low": low, "ci_high": high}
    return [
        f"{name} is {evaluation[name]}: {correct} of {n} give {value}"
        for name, value in expected.items()
        if not math.isclose(evaluation[name], value, rel_tol=0, abs_tol=1e-6)
    ]


def _plausible(evaluation: dict[str, Any], chance: float) -> list[str]:
    whole = {int(w): accuracy for w, accuracy in evaluation["required_context"].items()}
    oracle = whole[max(whole)]
    if evaluation["ci_low"] > oracle:
        return [f"accuracy {evaluation['accuracy']:.4f} is above the oracle's {oracle:.4f}"]
    if evaluation["ci_high"] < chance:
        return [f"accuracy {evaluation['accuracy']:.4f} is below chance, {chance:.4f}"]
    return []


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
