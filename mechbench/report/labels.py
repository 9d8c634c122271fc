"""Labels of a table's rows: the operator, and only the options that tell rows apart. No torch."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from mechbench.catalogue.registry import TASKS
from mechbench.errors import MechbenchError
from mechbench.record.config import Config, canonical_json

# What names the section, the row or the column already, or distinguishes the seeds of a row.
_NAMED_ELSEWHERE = (
    "operator", "task", "operator_options", "task_options", "task_version", "seqlen",
    "vocab_size", "eval_seqlens", "d_model", "n_layers", "seed", "protocol", "allow_noncausal",
)  # fmt: skip
SETTINGS = tuple(field.name for field in fields(Config) if field.name not in _NAMED_ELSEWHERE)
CODE = ("plugins", "sources")  # settings that say which code ran
_ANY_LENGTH = ("lr", "schedule", "short_conv", *CODE)  # told apart over all trained lengths
_FOLLOWS = "max_seqlen"  # from options and lengths, so it says nothing that they do not


def called(name: str, task: str) -> str:
    """Return how people call a field of the configuration: a task has its own word for vocab_size.

    Only the built-ins are asked, so that no table depends on which plugins are loaded.
    """
    if name != "vocab_size":
        return name
    try:
        built_in = TASKS.entry(task).origin == "built-in"
    except MechbenchError:  # unknown here, and no less a result
        return name
    return str(TASKS.load(task).vocab_name) if built_in else name


def show(value: Any, digits: int = 6) -> str:
    """Return an option's value as short text, a number with so many significant digits."""
    if value is None or isinstance(value, str):
        return value or "none"
    if isinstance(value, float):
        return f"{value:.{digits}g}" if digits < 17 else repr(value)
    return canonical_json(value)


def texts(values: Iterable[Any]) -> dict[str, str]:
    """Return {JSON: text} of values, with as many digits as tell them apart."""
    known = {canonical_json(value): value for value in values}
    for digits in range(6, 18):
        shown = {key: show(value, digits) for key, value in known.items()}
        if len(set(shown.values())) == len(shown):
            return shown
    return {key: key for key in known}  # 1 and "1", nothing and "none"


def crosses_lengths(configs: Iterable[Config]) -> bool:
    """Say whether any model is scored at a length that it was not trained at."""
    return any(set(config.eval_seqlens) - {config.seqlen} for config in configs)


def labels(
    configs: Sequence[Config], identities: Sequence[str], hidden: Sequence[str] = ()
) -> list[str]:
    """Return one label a configuration of a section; equal for the seeds of one experiment.

    Options, `lr`, `schedule`, `short_conv` and the code are told apart over all lengths; other
    settings, such as the batch size, only where they differ at one trained length, as their
    defaults depend on it. `hidden`
    settings are never told apart, and `max_seqlen` only where nothing else does it. The length of
    training stands in a label where models of several are scored at lengths that are not their own.
    Two experiments trained at one length never share a label.

    Args:
        configs: one a result.
        identities: of the experiments, as `mechbench.report.collect.identity` gives them.
        hidden: names of settings, such as "lr".
    """
    short = _labels(configs, (*hidden, _FOLLOWS))
    if any(len(keys) > 1 for keys in _owners(short, configs, identities).values()):
        short = _labels(configs, hidden)
    return _unique(short, configs, identities)


def _labels(configs: Sequence[Config], hidden: Sequence[str]) -> list[str]:
    crossing = crosses_lengths(configs) and len({config.seqlen for config in configs}) > 1
    parts = [_parts(config, hidden) for config in configs]
    seen: dict[tuple[str, ...], set[str]] = defaultdict(set)
    values: dict[tuple[str, str], list[Any]] = defaultdict(list)
    names: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for config, own in zip(configs, parts, strict=True):
        names[config.operator].update(own)
    for config, own in zip(configs, parts, strict=True):
        for name in names[config.operator]:
            # An option that was not there differs from one that was nothing.
            text = canonical_json(own[name]) if name in own else ""
            seen[config.operator, *name, _scope(config, name)].add(text)
        for name, value in own.items():
            values[name].append(value)
    known = {name: texts(found) for name, found in values.items()}
    result = []
    for config, own in zip(configs, parts, strict=True):
        told = [
            f"{name[1]}={known[name][canonical_json(value)]}"
            for name, value in own.items()
            if len(seen[config.operator, *name, _scope(config, name)]) > 1
        ]
        label = config.operator + (f" ({', '.join(told)})" if told else "")
        result.append(f"{label}, trained at {config.seqlen}" if crossing else label)
    return result


def _scope(config: Config, name: tuple[str, str]) -> str:
    kind, setting = name
    return "" if kind != "setting" or setting in _ANY_LENGTH else str(config.seqlen)


def _parts(config: Config, hidden: Sequence[str]) -> dict[tuple[str, str], Any]:
    """Return {(kind, name): value} of what may tell a configuration from others."""
    own = {("option", key): config.operator_options[key] for key in sorted(config.operator_options)}
    for name in SETTINGS:
        if name == "sources":
            own |= {("source", k): _version(v) for k, v in sorted(config.sources.items())}
        elif name not in hidden:
            own["setting", name] = setting(config, name)
    return own


def setting(config: Config, name: str) -> Any:
    """Return the value of a setting as it is compared; plugins by the start of their digests."""
    if name == "plugins":
        return "+".join(sorted(map(_version, config.plugins.values()))) or None
    return getattr(config, name)


def _version(text: str) -> str:
    """Return a version as it is, and the start of a digest."""
    return text[:8] if re.fullmatch(r"(sha256:)?[0-9a-f]{10,}", text) else text


def _unique(
    names: Sequence[str], configs: Sequence[Config], identities: Sequence[str]
) -> list[str]:
    """Return the labels, with the start of a hash where two experiments would share one."""
    owners = _owners(names, configs, identities)
    return [
        f"{name} [{hashlib.sha256(key.encode()).hexdigest()[:6]}]"
        if len(owners[name, config.seqlen]) > 1
        else name
        for name, config, key in zip(names, configs, identities, strict=True)
    ]


def _owners(
    names: Sequence[str], configs: Sequence[Config], identities: Sequence[str]
) -> dict[tuple[str, int], set[str]]:
    """Return the experiments that have a label at a trained length."""
    owners: dict[tuple[str, int], set[str]] = defaultdict(set)
    for name, config, key in zip(names, configs, identities, strict=True):
        owners[name, config.seqlen].add(key)
    return owners
