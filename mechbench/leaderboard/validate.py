"""Can a submitted result be believed? Its figures are checked against each other. No torch.

`mechbench.leaderboard.truth` goes on with what the task and the model tell.
"""

from __future__ import annotations

import datetime
import math
from typing import Any

from mechbench.errors import ConfigError
from mechbench.leaderboard.form import form_faults
from mechbench.record.config import PROTOCOL, Config
from mechbench.record.outcome import MARK, outcome_of
from mechbench.record.results import wilson_interval

_STOPS = {
    "ok": ("solved", "budget"),
    "diverged": ("diverged",),
    "out-of-memory": ("out-of-memory",),
    "error": ("error", None),
}
_BEGAN = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)  # no result is older
_SPREAD = 1000  # a median speed and a mean one may differ by compilation and by lengths
_SIGMAS = 6  # validation and test examples are of one distribution


def faults(data: dict[str, Any]) -> list[str]:
    """Return what is impossible in a result, one line each; an honest one has none.

    Looked at are types and ranges, the configuration and its hash, the provenance, that every
    figure follows from its counts, and that no two figures contradict each other. How good an
    accuracy is does not matter: far below chance is as honest as far above.
    """
    from mechbench.record.schema import result_faults

    found = result_faults(data)
    if found:  # what follows relies on the types
        return found
    config = Config.from_dict(data["config"])
    try:
        found = form_faults(data, config)
    except ConfigError as error:  # an option is no number
        found = [str(error)]
    return found or [
        *_identity(config),
        *_date(data["provenance"]["date"]),
        *_evaluations(data, config),
        *_outcome(data, config),
    ]


def _identity(config: Config) -> list[str]:
    return (
        []
        if config.protocol == PROTOCOL
        else [f"protocol is {config.protocol}: expected {PROTOCOL}"]
    )


def _date(text: str) -> list[str]:
    try:
        date = datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.UTC)
    except ValueError:
        return [f"provenance has the date {text!r}: expected UTC, ISO 8601"]
    if not _BEGAN <= date <= datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1):
        return [f"provenance has the date {text}: expected between {_BEGAN:%Y-%m-%d} and now"]
    return []


def _evaluations(data: dict[str, Any], config: Config) -> list[str]:
    found = []
    lengths = [e["seqlen"] for e in data["evaluations"]]
    if not set(lengths) <= set(config.eval_seqlens):
        found.append(f"evaluations at {lengths}: expected {list(config.eval_seqlens)}")
    for evaluation in data["evaluations"]:
        where = f"at {evaluation['seqlen']}: "
        found += [where + fault for fault in _counts(evaluation, config)]
    return found


def _counts(evaluation: dict[str, Any], config: Config) -> list[str]:
    correct, n, dense_n = (evaluation[name] for name in ("correct", "n", "dense_n"))
    if correct > n or n < config.n_test:
        return [f"{correct} of {n} right: expected at least {config.n_test} scored"]
    low, high = wilson_interval(correct, n)
    expected = {"accuracy": correct / n, "ci_low": low, "ci_high": high}
    found = [
        f"{name} is {evaluation[name]}: {correct} of {n} give {value}"
        for name, value in expected.items()
        if not math.isclose(evaluation[name], value, rel_tol=0, abs_tol=1e-6)
    ]
    # The scored positions are among the predictable ones.
    dense = evaluation["dense_accuracy"] * dense_n
    if abs(dense - round(dense)) > 1e-3 or not correct <= round(dense) <= correct + dense_n - n:
        found.append(
            f"dense_accuracy is {evaluation['dense_accuracy']}: impossible of {dense_n} positions, "
            f"{correct} of {n} among them right"
        )
    return found


def _outcome(data: dict[str, Any], config: Config) -> list[str]:
    status, stop = data["status"], data.get("stop")
    solved = bool(data.get("solved"))
    found = []
    if status != "ok" and not data.get("reason"):
        found.append(f"status is {status!r} without a reason")
    if stop not in _STOPS[status]:
        found.append(f"stop is {stop!r}: status {status!r} contradicts it")
    if solved != (stop == "solved"):
        found.append(f"solved is {solved}: stop {stop!r} contradicts it")
    if data["train_tokens"] > config.budget_tokens:
        found.append(
            f"{data['train_tokens']} training tokens: the budget is {config.budget_tokens}"
        )
    if bool(data["steps"]) != bool(data["train_tokens"]):
        found.append(f"{data['steps']} steps with {data['train_tokens']} training tokens")
    if status == "ok":
        found += [*_complete(data, config), *_told(data)]
    seconds, rate = data["seconds"]["train"], data.get("tokens_per_s")
    if rate is not None and data["train_tokens"]:
        mean = data["train_tokens"] / seconds if seconds else math.inf
        if not mean / _SPREAD <= rate <= mean * _SPREAD:
            found.append(f"tokens_per_s is {rate}: {data['train_tokens']} in {seconds} s")
    return found


def _told(data: dict[str, Any]) -> list[str]:
    """Return where the outcome that a result tells is not that of its other fields."""
    told = outcome_of(data)
    if not data.get("outcome") or told is None:  # of an older version
        return []
    fields = [
        ("tokens", told.tokens, data["train_tokens"]),  # training ends once solved
        ("mark", told.mark, MARK),
        ("accuracy", told.accuracy, data.get("validation_accuracy")),
    ]
    return [
        f"outcome.{name} is {value}: expected {expected}"
        for name, value, expected in fields
        if value != expected
    ]


def _complete(data: dict[str, Any], config: Config) -> list[str]:
    """Return what a result that claims to be sound lacks or contradicts."""
    found = [
        f"{name} is {data.get(name)!r}: expected a number above 0"
        for name in ("parameters", "steps", "train_tokens")
        if not data.get(name)
    ]
    found += [
        f"seconds.{name} is {value}: expected above 0"
        for name, value in data["seconds"].items()
        if not value
    ]
    if data.get("causal") is None:
        found.append("causal is missing: expected true or false")
    elif not data["causal"] and not config.allow_noncausal:
        found.append("causal is false: only a run with allow_noncausal is ok nevertheless")
    # Absent from results older than it; selection then counts it as 0.
    validated = data.get("validation_accuracy")
    if data.get("solved") and (validated is None or validated < MARK):
        found.append(f"solved with a validation accuracy of {validated}: expected {MARK} or more")
    here = [e for e in data["evaluations"] if e["seqlen"] == config.seqlen]
    if validated is not None and here and _apart(validated, here[0]["accuracy"], config):
        found.append(
            f"validation accuracy {validated:.4f} and test accuracy {here[0]['accuracy']:.4f} are "
            "of one model and one distribution: too far apart"
        )
    return found


def _apart(validated: float, tested: float, config: Config) -> bool:
    """Return whether two accuracies cannot be one model's; positions of an example may agree."""
    sizes = config.n_validation, config.n_test
    pooled = (validated * sizes[0] + tested * sizes[1]) / sum(sizes)
    error = math.sqrt(pooled * (1 - pooled) * sum(1 / n for n in sizes))
    return abs(validated - tested) > _SIGMAS * error + 1 / min(sizes)
