"""Names of the table's rows: the operator, and only what tells it from its namesakes. No torch."""

from __future__ import annotations

from collections import defaultdict
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


def labels(configs: Sequence[Config], hidden: Sequence[str] = ()) -> list[str]:
    """Return one label a configuration of a section; equal for the seeds of one experiment.

    Options and `lr` are told apart over all lengths; other settings, such as the batch size, only
    where they differ at one trained length, as their defaults depend on it. `hidden` settings are
    never told apart.
    """
    crossing = crosses_lengths(configs)
    seen: dict[tuple[str, ...], set[str]] = defaultdict(set)
    keys = {(c.operator, key) for c in configs for key in c.operator_options}
    texts = [
        {name: setting(config, name) for name in SETTINGS if name not in hidden}
        for config in configs
    ]
    options = [{k: show(v) for k, v in config.operator_options.items()} for config in configs]
    for config, own in zip(configs, texts, strict=True):
        for operator, key in keys:
            if operator == config.operator:
                seen[operator, key].add(canonical_json(config.operator_options.get(key)))
        for name, text in own.items():
            seen[config.operator, name, "" if name == "lr" else str(config.seqlen)].add(text)
    result = []
    for config, own, given in zip(configs, texts, options, strict=True):
        parts = [
            f"{key}={text}"
            for key, text in sorted(given.items())
            if len(seen[config.operator, key]) > 1
        ]
        parts += [
            f"{name}={text}"
            for name, text in own.items()
            if len(seen[config.operator, name, "" if name == "lr" else str(config.seqlen)]) > 1
        ]
        label = config.operator + (f" ({', '.join(parts)})" if parts else "")
        result.append(f"{label}, trained at {config.seqlen}" if crossing else label)
    return result
