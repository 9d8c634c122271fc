"""From what a user gave to a complete configuration; torch is imported once the rest is sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from mechbench.curriculum import stages
from mechbench.errors import ConfigError, nearest
from mechbench.registry import OPERATORS, TASKS
from mechbench.spec import (
    Config,
    default_budget_tokens,
    default_examples,
)
from mechbench.tasks.base import Task, make_task

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
        curriculum: "auto" (lengths grow to the task's, see `mechbench.curriculum`) or "none".
        settings: other fields of `Config`; None takes the default.

    Raises:
        ConfigError: anything unknown, of the wrong type or out of range.
    """
    known = {field.name for field in fields(Config)} - _DERIVED
    for key in settings:
        if key not in known:
            raise ConfigError(f"unknown setting {key!r}: {nearest(key, known)}")
    given = {key: value for key, value in settings.items() if value is not None}
    if dtype not in ("auto", *DTYPES):
        raise ConfigError(f"unknown dtype {dtype!r}: {nearest(dtype, ('auto', *DTYPES))}")
    _check_device(device)
    OPERATORS.entry(operator)
    params = dict(task_options or {})
    made = make_task(
        task, vocab_size=given.pop("vocab_size", None), seqlen=given.pop("seqlen", None), **params
    )
    lengths = sorted({*eval_seqlens, made.seqlen})
    for length in lengths:
        longest = make_task(task, vocab_size=made.vocab_size, seqlen=length, **params)
    if curriculum not in ("auto", "none"):
        raise ConfigError(f"curriculum is {curriculum!r}: choose from auto, none")
    given["curriculum"] = stages(made, curriculum, given.get("batch_size"))
    given["batch_size"] = given["curriculum"][-1][1]
    given.setdefault("budget_tokens", default_budget_tokens(given["batch_size"], made.input_seqlen))
    n_validation, n_test = default_examples(made.seqlen)
    given.setdefault("n_validation", n_validation)
    given.setdefault("n_test", n_test)
    Config(operator, task, **given)  # checks ranges before torch is loaded

    device = device_of(device)
    device_type = device.partition(":")[0]
    if dtype == "auto":
        dtype = "bfloat16" if device_type == "cuda" else "float32"
    from mechbench.operators.base import depends_on_max_seqlen, operators_used
    from mechbench.operators.base import operator_options as resolve_operator

    options = resolve_operator(operator, dict(operator_options or {}))
    used = operators_used(operator, options)
    entries = [*map(OPERATORS.entry, used), TASKS.entry(task)]
    sources = TASKS.sources(task)
    for name in used:
        sources |= OPERATORS.sources(name)
    longer = lengths[-1] > made.seqlen and depends_on_max_seqlen(operator, options)
    config = Config(
        operator=operator,
        task=task,
        operator_options=options,
        task_options=_task_options(made),
        task_version=getattr(made, "version", 1),
        seqlen=made.seqlen,
        vocab_size=made.vocab_size,
        eval_seqlens=tuple(lengths),
        dtype=dtype,
        device_type=device_type,
        plugins={entry.origin: entry.digest for entry in entries if entry.digest},
        sources=sources,
        max_seqlen=longest.input_seqlen if longer else 0,
        **given,
    )
    return config, device


def check_without_torch(
    task: str, parameters: Mapping[str, Any], settings: Mapping[str, Any], budget: int | None
) -> None:
    """Check what can be checked before torch is imported: the task at every length, and ranges.

    Raises:
        ConfigError: as `resolve`.
    """
    for length in {settings.get("seqlen"), *settings.get("eval_seqlens", ())}:
        made = make_task(task, vocab_size=settings.get("vocab_size"), seqlen=length, **parameters)
    ranges = {
        key: settings[key]
        for key in ("lr", "d_model", "n_layers", "batch_size")
        if settings.get(key) is not None
    }
    Config("", task, budget_tokens=budget or 1, seqlen=made.seqlen, **ranges)


def task_of(config: Config, seqlen: int | None = None) -> Task:
    """Return the configured task, at another length if one is given."""
    return make_task(
        config.task,
        vocab_size=config.vocab_size,
        seqlen=config.seqlen if seqlen is None else seqlen,
        **config.task_options,
    )


def _task_options(task: Any) -> dict[str, Any]:
    return {
        field.name: getattr(task, field.name)
        for field in fields(task)
        if field.name not in ("vocab_size", "seqlen")
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
