"""From a user's settings to a complete configuration; torch is imported last."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from typing import Any

from mechbench.catalogue.bounds import EVALUATION, LOGITS, OPTIONS, PARAMETERS, STEP, TRAINING_SET
from mechbench.catalogue.options import signature_options
from mechbench.catalogue.registry import OPERATORS, TASKS, code_of
from mechbench.catalogue.settings import check_options, check_product, setting
from mechbench.errors import ConfigError, nearest
from mechbench.plan.curriculum import check_budget, stages
from mechbench.record.config import (
    Config,
    canonical_json,
    default_budget_tokens,
    default_examples,
)
from mechbench.tasks.base import RESERVED, Task, as_task, make_task, task_parameters

_CUT = ("n_taps", "n_modes", "window")
_QUICK = 1024  # channels of an operator that is built in milliseconds
DTYPES = ("float32", "bfloat16")
_DERIVED = {
    "task_version",
    "device_type",
    "plugins",
    "sources",
    "max_seqlen",
    "protocol",
}  # fields nobody sets


def resolve(
    operator: str,
    task: str,
    *,
    operator_options: Mapping[str, Any] | None = None,
    task_options: Mapping[str, Any] | None = None,
    eval_seqlens: Sequence[int] = (),
    device: str = "auto",
    dtype: str = "auto",
    curriculum: str = "auto",
    **settings: Any,
) -> tuple[Config, str]:
    """Return the resolved configuration and the device to run it on.

    Args:
        operator: registered name.
        task: registered name.
        operator_options: the operator's keyword arguments, strings or values.
        task_options: the task's parameters, strings or values.
        eval_seqlens: lengths to score beside the trained one.
        device: "auto" (CUDA if there is one), "cpu", "cuda" or "cuda:N".
        dtype: "auto" (bfloat16 on CUDA), "float32" or "bfloat16".
        curriculum: "auto" (lengths grow to the task's, see `mechbench.plan.curriculum`) or "none".
        settings: other fields of `Config`; None takes the default.

    Raises:
        ConfigError: anything unknown, of the wrong type or out of range.
    """
    draft = _draft(operator, task, task_options, eval_seqlens, device, dtype, curriculum, settings)
    made, lengths, given = draft.task, draft.lengths, draft.settings
    given_options = {} if operator_options is None else operator_options
    asked: dict[str, Any] = setting("operator_options", given_options)

    device = device_of(draft.device)
    device_type = device.partition(":")[0]
    if dtype == "auto":
        dtype = "bfloat16" if device_type == "cuda" else "float32"
    from mechbench.operators.base import components_used, depends_on_max_seqlen, to_stored
    from mechbench.operators.base import operator_options as resolve_operator

    options = resolve_operator(operator, asked)
    plugins, sources = code_of([*components_used(operator, options), TASKS.entry(task)])
    longer = lengths[-1] > made.seqlen and depends_on_max_seqlen(operator, options)
    config = Config(
        operator=operator,
        task=task,
        operator_options=to_stored(operator, options),
        task_options=task_options_of(made),
        task_version=made.version,
        seqlen=made.seqlen,
        vocab_size=made.vocab_size,
        eval_seqlens=tuple(lengths),
        dtype=dtype,
        device_type=device_type,
        plugins=plugins,
        sources=sources,
        max_seqlen=draft.longest if longer else 0,
        **given,
    )
    _check_operator(config, draft.longest)
    return config, device


@dataclass(frozen=True)
class _Draft:
    """What can be said of a configuration before torch is loaded."""

    task: Task
    longest: int  # input, in tokens
    lengths: list[int]  # to score
    settings: dict[str, Any]  # fields of Config
    device: str


def check_without_torch(
    operator: str,
    task: str,
    *,
    task_options: Mapping[str, Any] | None = None,
    eval_seqlens: Sequence[int] = (),
    device: str = "auto",
    dtype: str = "auto",
    curriculum: str = "auto",
    **settings: Any,
) -> None:
    """Check what can be checked before torch is imported; takes what `resolve` takes.

    Raises:
        ConfigError: as `resolve`.
    """
    _draft(operator, task, task_options, eval_seqlens, device, dtype, curriculum, settings)


def _draft(
    operator: str,
    task: str,
    task_options: Mapping[str, Any] | None,
    eval_seqlens: Sequence[int],
    device: str,
    dtype: str,
    curriculum: str,
    settings: Mapping[str, Any],
) -> _Draft:
    known = {field.name for field in fields(Config)} - _DERIVED
    for key in settings:
        if key not in known:
            raise ConfigError(f"unknown setting {key!r}: {nearest(key, known)}")
    given = {key: setting(key, value) for key, value in settings.items() if value is not None}
    if setting("dtype", dtype) not in ("auto", *DTYPES):
        raise ConfigError(f"unknown dtype {dtype!r}: {nearest(dtype, ('auto', *DTYPES))}")
    device = setting("device", device)
    _check_device(device)
    if setting("curriculum", curriculum) not in ("auto", "none"):
        raise ConfigError(f"curriculum is {curriculum!r}: choose from auto, none")
    OPERATORS.entry(setting("operator", operator))
    TASKS.entry(setting("task", task))
    params = task_parameters(setting("task_options", {} if task_options is None else task_options))
    sizes = {key: given.pop(key, None) for key in ("vocab_size", "seqlen")}
    made = make_task(task, **sizes, **params)
    lengths = sorted({*setting("eval_seqlens", eval_seqlens), made.seqlen})
    longest = 0
    for length in lengths:
        own = params if length == made.seqlen else _exact(params)
        at = make_task(task, vocab_size=made.vocab_size, seqlen=length, **own)
        longest = max(longest, at.input_seqlen)
    given["curriculum"] = stages(made, curriculum, given.get("batch_size"))
    given["batch_size"] = given["curriculum"][-1][1]
    given.setdefault("budget_tokens", default_budget_tokens(given["batch_size"], made.input_seqlen))
    n_validation, n_test = default_examples(made.seqlen)
    given.setdefault("n_validation", n_validation)
    given.setdefault("n_test", n_test)
    sizes = {"vocab_size": made.vocab_size, "seqlen": made.seqlen}
    config = Config(operator, task, **sizes, **given)  # checks ranges before torch is loaded
    _check_work(config, made, longest)
    check_budget(made, config.curriculum, config.budget_tokens, config.validate_every)
    return _Draft(made, longest, lengths, given, device)


def _check_work(config: Config, made: Task, longest: int) -> None:
    """Check sizes that are fine alone and too many together; `longest` is an input's, in tokens."""
    numbers = max(1, made.input_dim)
    check_product(PARAMETERS, n_layers=config.n_layers, weights_a_layer=8 * config.d_model**2)
    check_product(PARAMETERS, vocab_size=config.vocab_size, d_model=config.d_model)
    check_product(STEP, batch_size=config.batch_size, tokens=made.input_seqlen * numbers)
    for name in ("n_test", "n_validation"):
        check_product(EVALUATION, **{name: getattr(config, name)}, tokens=longest * numbers)
    check_product(TRAINING_SET, n_train=config.n_train, tokens=made.input_seqlen * numbers)
    if not made.input_dim:
        check_product(LOGITS, vocab_size=config.vocab_size, tokens=longest)


def _check_operator(config: Config, longest: int) -> None:
    """Check the options of built-in operators; those of plugins are checked once they train."""
    from mechbench.operators.base import components_used

    used = components_used(config.operator, config.operator_options)
    if any(entry.origin != "built-in" for entry in used):
        return
    n_operators = sum(entry.kind == "operator" for entry in used)
    widest = 1
    for key, value in config.operator_options.items():
        name = key.rpartition(".")[2]  # of a hybrid's part
        if name in OPTIONS and value is not None:
            check_options(**{name: value})
            if OPTIONS[name].kind is int:  # what is longer than the input is cut to it
                widest = max(widest, min(value, longest) if name in _CUT else value)
    check_product(
        PARAMETERS, n_layers=config.n_layers, d_model=config.d_model, widest_option=widest
    )
    if max(config.d_model, widest) <= _QUICK:
        for layer in range(min(config.n_layers, n_operators)):
            _build(config.operator, canonical_json(config.operator_options), config.d_model, layer)


@lru_cache(maxsize=512)  # a sweep has many cells and few operators
def _build(operator: str, options: str, d_model: int, layer: int) -> None:
    """Build a small operator and drop it: what does not fit together is said before anything runs.

    Raises:
        ConfigError: options that do not fit each other or d_model.
        OperatorError: it cannot be built.
    """
    import torch

    from mechbench.operators.base import from_stored, make_operator

    given = from_stored(operator, json.loads(options))
    with torch.random.fork_rng(devices=()):  # the caller's draws stay as they were
        make_operator(operator, d_model=d_model, max_seqlen=64, layer=layer, **given)


def task_of(config: Config, seqlen: int | None = None) -> Task:
    """Return the configured task, or at another length as it is scored there."""
    length = config.seqlen if seqlen is None else seqlen
    options = config.task_options if length == config.seqlen else _exact(config.task_options)
    return make_task(config.task, vocab_size=config.vocab_size, seqlen=length, **options)


def scored_task(config: Config, seqlen: int) -> Task:
    """Return the task of the test set at a length."""
    return as_task(task_of(config, seqlen).tested(), f"the tested form of task {config.task!r}")


def _exact(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the options of a task of variable length for examples of one length."""
    return {**options, "min_seqlen": 0} if options.get("min_seqlen") else options


def task_options_of(task: Any) -> dict[str, Any]:
    """Return the parameters of a task; what it keeps to itself is not among them."""
    if not is_dataclass(task):
        raise ConfigError(
            f"task {type(task).__name__} is no dataclass: its parameters are the fields of one"
        )
    options = signature_options(type(task), RESERVED)
    return {
        field.name: getattr(task, field.name) for field in fields(task) if field.name in options
    }


def _check_device(device: str) -> None:
    kind, _, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and not (kind == "cuda" and index.isdigit())):
        raise ConfigError(f"unknown device {device!r}: choose from auto, cpu, cuda, cuda:N")


def device_of(device: str) -> str:
    """Return the device that "auto" means here, or `device` itself if it is there.

    Raises:
        ConfigError: it is not there.
    """
    _check_device(device)
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise ConfigError(f"device is {device!r}: this machine has no CUDA device; use cpu")
        index = int(device.partition(":")[2] or 0)
        if index >= torch.cuda.device_count():
            raise ConfigError(
                f"device is {device!r}: there are {torch.cuda.device_count()} CUDA devices, "
                "numbered from 0"
            )
    return device
