"""A genuine result falsified in many ways, and honest ones that look odd."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable
from typing import Any

from mechbench.errors import ConfigError
from mechbench.record.config import Config
from mechbench.record.outcome import outcome_of
from mechbench.record.results import wilson_interval

Result = dict[str, Any]
Change = Callable[[Result], object]


def rehash(data: Result) -> Result:
    """Give a result the id of its configuration, as a careful forger does."""
    with contextlib.suppress(ConfigError):  # some are no configuration at all
        data["cell_id"] = Config.from_dict(data["config"]).cell_id
    return data


def retold(data: Result) -> Result:
    """Let the outcome follow from the rest, as it would be computed."""
    data.pop("outcome", None)
    told = outcome_of(data)
    data["outcome"] = None if told is None else told.to_dict()
    return data


def score(data: Result, shares: float, *, at: int | None = None, dense: bool = True) -> Result:
    """Let a share of the test examples be right, and all that follows from it be consistent."""
    for e in data["evaluations"]:
        if at not in (None, e["seqlen"]):
            continue
        correct = round(shares * e["n"])
        low, high = wilson_interval(correct, e["n"])
        e |= {"correct": correct, "accuracy": correct / e["n"], "ci_low": low, "ci_high": high}
        if dense:
            others = round(shares * (e["dense_n"] - e["n"]))
            e["dense_accuracy"] = (correct + others) / e["dense_n"]
    if dense:
        n = data["config"]["n_validation"]
        data["validation_accuracy"] = round(shares * n) / n
    return retold(data)


def _set(path: str, value: Any) -> Change:
    def change(data: Result) -> None:
        *parents, last = path.split("/")
        inside: Any = data
        for key in parents:
            inside = inside[int(key) if isinstance(inside, list) else key]
        inside[int(last) if isinstance(inside, list) else last] = value

    return change


def _all(*changes: Change) -> Change:
    def change(data: Result) -> None:
        for one in changes:
            one(data)

    return change


def _config(name: str, value: Any) -> Change:
    return _all(_set(f"config/{name}", value), rehash)


def _drop(path: str) -> Change:
    def change(data: Result) -> None:
        *parents, last = path.split("/")
        inside: Any = data
        for key in parents:
            inside = inside[int(key) if isinstance(inside, list) else key]
        del inside[last]

    return change


def _first(**values: Any) -> Change:
    return lambda data: data["evaluations"][0].update(values)


def _more_examples(data: Result) -> None:
    e = data["evaluations"][0]
    e |= {"n": 4 * e["n"], "dense_n": 4 * e["dense_n"], "correct": 4 * e["correct"]}
    low, high = wilson_interval(e["correct"], e["n"])
    e |= {"ci_low": low, "ci_high": high}


def _oracle(value: float) -> Change:
    def change(data: Result) -> None:
        context = data["evaluations"][0]["required_context"]
        context[max(context, key=int)] = value

    return change


def _solved(data: Result) -> None:
    data |= {"solved": True, "stop": "solved"}


OUTCOMES: dict[str, Change] = {
    # They contradict the rest.
    "outcome solved": _set("outcome/kind", "solved"),
    "outcome unheard of": _set("outcome/kind", "<b>"),
    "outcome after fewer tokens": _set("outcome/tokens", 10),
    "outcome by another mark": _set("outcome/mark", 0.1),
    "outcome of another accuracy": _set("outcome/accuracy", 1.0),
    "outcome of more positions": _set("outcome/positions", 10**6),
    "outcome flat without a slope": _all(
        _set("outcome/slope", None),
        _set("outcome/slope_low", None),
        _set("outcome/slope_high", None),
        _set("outcome/trend", "flat"),
    ),
    "outcome of a slope beyond its interval": _set("outcome/slope", 99.0),
}  # fmt: skip
FORGERIES: dict[str, Change] = {
    # Types.
    "accuracy a text": _first(accuracy="0.5"),
    "correct a text": _first(correct="12"),
    "correct a fraction": _first(correct=12.5),
    "correct a flag": _first(correct=True),
    "n a list": _first(n=[256]),
    "shortcuts a list": _first(shortcuts=[0.5]),
    "a shortcut a text": _first(shortcuts={"last value": "0.5"}),
    "steps a text": _set("steps", "20"),
    "tokens a list": _set("train_tokens", [5760]),
    "parameters a text": _set("parameters", "many"),
    "seconds a list": _set("seconds", [1.0]),
    "a second a text": _set("seconds/train", "1"),
    "evaluations a table": _set("evaluations", {}),
    "an evaluation a text": _set("evaluations/0", "x"),
    "provenance a list": _set("provenance", []),
    "device a list": _set("provenance/device", ["GPU"]),
    "configuration a list": _set("config", []),
    "solved a text": _set("solved", "yes"),
    "causal a text": _set("causal", "true"),
    "seed a fraction": _config("seed", 1.0),
    "lr a text": _config("lr", "0.004"),
    "curriculum a text": _set("config/curriculum", "none"),
    # Ranges.
    "negative seconds": _set("seconds/train", -1.0),
    "negative tokens": _set("train_tokens", -5760),
    "negative steps": _set("steps", -20),
    "negative memory": _set("peak_memory_mib", -1.0),
    "speed not a number": _set("tokens_per_s", math.nan),
    "endless FLOPs": _set("flops_per_token", math.inf),
    "validation not a number": _set("validation_accuracy", math.nan),
    "validation above 1": _set("validation_accuracy", 1.5),
    "parameters beyond 64 bits": _set("parameters", 10**40),
    "negative correct": _first(correct=-1),
    "negative seed": _config("seed", -1),
    "negative weight decay": _set("config/weight_decay", -1.0),
    # Figures that do not follow from counts.
    "accuracy above its counts": _first(accuracy=0.99),
    "interval narrowed": _first(ci_low=0.3, ci_high=0.3),
    "more right than scored": _first(correct=257, accuracy=1.0),
    "fewer examples": _first(n=100),
    "examples counted four times": _more_examples,
    "dense positions invented": _first(dense_n=10_000),
    "dense accuracy below what is right": _first(dense_accuracy=0.0),
    "dense accuracy of no count": _first(dense_accuracy=0.2000001),
    "validation accuracy of no count": _set("validation_accuracy", 0.26),
    # The task's own baselines.
    "chance raised": _set("chance", 0.9),
    "chance zero": _set("chance", 0.0),
    "oracle lowered": _oracle(0.5),
    "no whole window": _first(required_context={"16": 0.5}),
    "windows without end": _first(required_context={"99999": 1.0}),
    "windows empty": _first(required_context={}),
    "a window no number": _first(required_context={"all": 1.0}),
    "short windows useless": _first(required_context={"16": 0.0, "18": 1.0}),
    "shortcuts useless": _first(shortcuts={"last value": 0.0, "most frequent value": 0.0}),
    "shortcuts hidden": _first(shortcuts={}),
    "a task of memory": _set("train_is_test", True),
    # Outcomes that contradict themselves.
    "solved at 45 percent": lambda d: _solved(score(d, 0.45)),
    "solved at 45 percent by its test": lambda d: _solved(
        score(score(d, 1.0), 0.45, at=16, dense=False)
    ),
    "solved without having stopped so": lambda d: score(d, 1.0).update(solved=True),
    "solved not said": lambda d: score(d, 1.0).update(stop="solved"),
    "solved before two validations": lambda d: (
        _solved(score(d, 1.0)),
        d.update(steps=5, train_tokens=5 * 288),
    ),
    "validated at 100, tested at 30 percent": _set("validation_accuracy", 1.0),
    "ok and diverged": _set("stop", "diverged"),
    "ok and out of memory": _set("stop", "out-of-memory"),
    "status unknown": _set("status", "fine"),
    "not run": _set("status", "not-run"),
    "failed without a reason": _set("status", "error"),
    "looks ahead": _set("causal", False),
    "causality not measured": _set("causal", None),
    "causality left out": _drop("causal"),
    "no evaluation": _set("evaluations", []),
    "one length left out": lambda d: d["evaluations"].pop(),
    "one length twice": lambda d: d["evaluations"].append(copy.deepcopy(d["evaluations"][0])),
    "another length": _first(seqlen=32),
    "no parameters": _set("parameters", None),
    "few parameters": _set("parameters", 10),
    "few FLOPs": _set("flops_per_token", 1.0),
    "over the budget": _all(_set("train_tokens", 5761), _set("steps", 21)),
    "steps without tokens": _set("train_tokens", 0),
    "more steps than tokens allow": _set("steps", 4000),
    "fewer steps than tokens need": _set("steps", 2),
    "stopped by a budget not spent": lambda d: d.update(steps=10, train_tokens=2880),
    "speed of another world": _set("tokens_per_s", 1e15),
    "no time": _set("seconds", {"train": 0.0, "evaluate": 0.0, "total": 0.0}),
    "time left out": _drop("seconds"),
    "more excluded than drawn": _set("excluded_examples", 10**9),
    "more sequences at once than a step has": _set("micro_batch_size", 10**6),
    **OUTCOMES,
    # Identity.
    "built for two tokens": _config("max_seqlen", 2),
    "a model beyond all memory": _config("d_model", 1 << 60),
    "id of another cell": _set("cell_id", "0" * 16),
    "id as a path": _set("cell_id", "../../../etc/x"),
    "seed changed under the id": _set("config/seed", 1),
    "older protocol": _config("protocol", 1),
    "operator with a Cyrillic letter": _config("operator", "att\u0435ntion"),
    "operator with a space": _config("operator", "attention "),
    "operator in capitals": _config("operator", "Attention"),
    "operator with a hyphen more": _config("operator", "attention-"),
    "operator as HTML": _config("operator", "<script>alert(1)</script>"),
    "operator as a formula": _config("operator", "=1+1"),
    "operator as a link": _config("operator", "[x](http://example.org)"),
    "operator of two lines": _config("operator", "a\nb"),
    "operator of 10,000 letters": _config("operator", "a" * 10_000),
    "an option of HTML": _config("operator_options", {"<b>": 1}),
    "an option that there is not": _config("operator_options", {"n_heads": 0, "magic": 1}),
    "an option of another type": _config("operator_options", {"n_heads": "0"}),
    "an option of another form": _config("operator_options", {"rotary_base": 10000}),
    "lengths twice": _config("eval_seqlens", [16, 16, 24]),
    "lengths falling": _config("eval_seqlens", [24, 16]),
    "another precision": _config("dtype", "float8"),
    "another device": _config("device_type", "abacus"),
    "a plugin's digest as HTML": _config("plugins", {"p.py": "<script>"}),
    # Provenance.
    "date of the future": _set("provenance/date", "2999-01-01T00:00:00Z"),
    "date before all": _set("provenance/date", "1999-01-01T00:00:00Z"),
    "no date": _set("provenance/date", "yesterday"),
    "no torch": _set("provenance/torch", None),
    "commit as HTML": _set("provenance/git_commit", "<b>"),
    "backend as HTML": _set("fft_conv_backend", "<b>"),
    "a command of a megabyte": _set("provenance/command", "x" * 1_000_000),
}


def _failed(status: str, reason: str) -> Change:
    def change(data: Result) -> None:
        stop = {"status": status, "stop": status, "reason": reason, "solved": False}
        data.update(stop, evaluations=[], validation_accuracy=None, tokens_per_s=None)

    return change


def _nothing_known(data: Result) -> None:
    """As `mechbench.training.outcome.empty_result` leaves a cell whose operator cannot be built."""
    _failed("error", "operator 'x' raised ValueError: <b>no</b>\n=1+1")(data)
    data.update(steps=0, train_tokens=0, parameters=None, flops_per_token=None, causal=None)
    data["seconds"] = {"train": 0.0, "evaluate": 0.0, "total": 0.1}


def _older(data: Result) -> None:
    """As before the schema grew: fewer fields, fewer shortcuts, windows at fewer columns."""
    for name in ("validation_accuracy", "train_is_test", "excluded_examples"):
        del data[name]
    for name in ("sources", "max_seqlen", "n_train", "short_conv"):
        del data["config"][name]
    for e in data["evaluations"]:
        e["shortcuts"] = {"last value": 0.1}
        e["required_context"]["16"] = 0.5


HONEST: dict[str, Change] = {
    "as it was": lambda d: None,
    "nothing right": lambda d: score(d, 0.0),
    "far below chance": lambda d: score(d, 0.05),
    "a little below chance": lambda d: score(d, 0.2),
    "chance": lambda d: score(d, 0.25),
    "everything right": lambda d: score(d, 1.0),
    "nothing right at the longer length": lambda d: score(d, 0.0, at=24, dense=False) and d["evaluations"][1].update(dense_accuracy=0.0),  # noqa: E501
    "solved": lambda d: (_solved(score(d, 1.0)), d.update(steps=10, train_tokens=2880)),
    "diverged, scored": lambda d: score(d, 0.0).update(
        status="diverged", stop="diverged", reason="the training loss is not finite"
    ),
    "diverged at the first step": lambda d: (
        score(d, 0.0),
        d.update(status="diverged", stop="diverged", reason="not finite", steps=0, train_tokens=0),
        d.update(validation_accuracy=None, tokens_per_s=None),
    ),
    "out of memory": _failed("out-of-memory", "CUDA out of memory"),
    "an error half-way": _failed("error", "operator 'attention' raised"),
    "an error before anything": _nothing_known,
    "of an older version": _older,
    "another learning rate": _config("lr", 0.01),
    "on a GPU": _all(_config("device_type", "cuda"), _config("dtype", "bfloat16")),
    "somebody's operator": _all(
        _config("operator", "their-package:Layer_2"), _config("operator_options", {"x": [1, "="]}),
        _set("parameters", 99), _set("flops_per_token", None),
    ),
    "the first seconds went into compiling": _set("tokens_per_s", 200_000.0),
}  # fmt: skip
