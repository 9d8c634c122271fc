"""Names of the table's rows: the operator, and only what tells it from its namesakes. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from mechbench.spec import Config, canonical_json

# What names the section, the row or the column already, or distinguishes the seeds of a row.
_NAMED_ELSEWHERE = (
    "operator", "task", "operator_options", "task_options", "task_version", "seqlen",
    "vocab_size", "eval_seqlens", "d_model", "n_layers", "seed", "protocol", "allow_noncausal",
)  # fmt: skip
SETTINGS = tuple(field.name for field in fields(Config) if field.name not in _NAMED_ELSEWHERE)


def setting(config: Config, name: str) -> str:
    """Return one setting as text; plugins by the start of their digests."""
    if name == "plugins":
        return "+".join(sorted(digest[:8] for digest in config.plugins.values())) or "none"
    return show(getattr(config, name))


def show(value: Any) -> str:
    """Return an option's value as short text."""
    if value is None or isinstance(value, str):
        return value or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return canonical_json(value)


def crosses_lengths(configs: Iterable[Config]) -> bool:
    """Say whether any model is scored at a length that it was not trained at."""
    return any(set(config.eval_seqlens) - {config.seqlen} for config in configs)


def labels(configs: Sequence[Config]) -> list[str]:
    """Return one label a configuration of a section; equal for the seeds of one experiment.

    Options and `lr` are told apart over all lengths; other settings, such as the batch size, only
    where they differ at one trained length, as their defaults depend on it.
    """
    crossing = crosses_lengths(configs)
    result = []
    for config in configs:
        namesakes = [other for other in configs if other.operator == config.operator]
        parts = [
            f"{key}={show(value)}"
            for key, value in sorted(config.operator_options.items())
            if len({canonical_json(o.operator_options.get(key)) for o in namesakes}) > 1
        ]
        for name in SETTINGS:
            peers = [o for o in namesakes if name == "lr" or o.seqlen == config.seqlen]
            if len({setting(other, name) for other in peers}) > 1:
                parts.append(f"{name}={setting(config, name)}")
        label = config.operator + (f" ({', '.join(parts)})" if parts else "")
        result.append(f"{label}, trained at {config.seqlen}" if crossing else label)
    return result
