"""What a leaderboard requires of a result's fields beyond `mechbench.record.schema`. No torch.

A result that is handed in goes on into tables, pages and spreadsheets, beside those of others. So
names are plain ASCII, texts have a length, and what only older versions left out is asked for.
"""

from __future__ import annotations

import re
from typing import Any

from mechbench.catalogue.registry import OPERATORS
from mechbench.record.config import Config, canonical_json

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,99}")  # of operators, tasks and options
_CHOICES = {"dtype": ("float32", "bfloat16"), "device_type": ("cpu", "cuda")}
_ORIGIN = ("mechbench", "torch", "python", "platform", "device", "date", "command")
_LONGEST = 4000  # characters of options and texts
_PATTERNS = {
    "git_commit": r"[0-9a-f]{7,64}\+?",
    "fft_conv_backend": r"[A-Za-z0-9_.:, -]{1,200}",
}


def form_faults(data: dict[str, Any], config: Config) -> list[str]:
    """Return what of a result that the schema passes cannot stand in a leaderboard."""
    return [*_names(config), *_settings(config), *_texts(data)]


def _names(config: Config) -> list[str]:
    names = [("operator", config.operator), ("task", config.task)]
    names += [("an operator option", key) for key in config.operator_options]
    names += [("a task option", key) for key in config.task_options]
    found = [
        f"{what} is called {name!a}: expected letters, digits, - _ : and . only"
        for what, name in names
        if not _NAME.fullmatch(name)
    ]
    known = OPERATORS.names()
    if config.operator not in known:
        twins = [name for name in known if _folded(name) == _folded(config.operator)]
        found += [f"operator {config.operator!r} is too like {name!r}: rename it" for name in twins]
    return found


def _folded(name: str) -> str:
    """Return what names that look alike share."""
    return re.sub(r"[-_.:]", "", name).casefold().translate(str.maketrans("01i", "oll"))


def _settings(config: Config) -> list[str]:
    found = [
        f"{name} is {getattr(config, name)!r}: expected {' or '.join(choices)}"
        for name, choices in _CHOICES.items()
        if getattr(config, name) not in choices
    ]
    found += [
        f"{name} is longer than {_LONGEST} characters"
        for name in ("operator_options", "task_options")
        if len(canonical_json(getattr(config, name))) > _LONGEST
    ]
    if config.seed < 0:
        found.append(f"seed is {config.seed}: expected 0, 1, 2 ...")
    lengths = list(config.eval_seqlens)
    if lengths != sorted(set(lengths)) or config.seqlen not in lengths or lengths[0] < 1:
        found.append(f"eval_seqlens is {lengths}: expected rising lengths with {config.seqlen}")
    whole = (config.seqlen, config.batch_size)
    if config.curriculum[-1:] != (whole,) or min(min(stage) for stage in config.curriculum) < 1:
        found.append(f"curriculum is {list(config.curriculum)}: expected {list(whole)} as its end")
    # Of older versions; a source that is a package has a version in place of a digest.
    if any(not re.fullmatch(r"[0-9a-f]+", digest) for digest in config.plugins.values()):
        found.append("plugins hold a digest that is none: expected hexadecimal digits")
    return found


def _texts(data: dict[str, Any]) -> list[str]:
    origin = data["provenance"]
    found = [f"provenance lacks {name!r}" for name in _ORIGIN if not origin.get(name)]
    texts = {"reason": data.get("reason"), **origin}
    found += [
        f"{name} is longer than {_LONGEST} characters"
        for name, text in texts.items()
        if isinstance(text, str) and len(text) > _LONGEST
    ]
    for name, pattern in _PATTERNS.items():
        text = origin.get(name) if name == "git_commit" else data.get(name)
        if text is not None and not re.fullmatch(pattern, text):
            found.append(f"{name} is {ascii(text)[:60]}: expected the form {pattern}")
    seconds = data.get("seconds") or {}
    if any(seconds.get(name) is None for name in ("train", "evaluate", "total")):
        found.append("seconds lack one of train, evaluate, total")
    found += [f"{name} is missing" for name in ("steps", "train_tokens") if data.get(name) is None]
    found += [
        f"at {e['seqlen']}: {e['non_finite']} of {e['n']} outputs are not finite"
        for e in data["evaluations"]
        if (e.get("non_finite") or 0) > e["n"]
    ]
    found += [
        f"at {e['seqlen']}: required_context is empty: expected the whole input at least"
        for e in data["evaluations"]
        if not e["required_context"]
    ]
    return found
