"""What is not the same for all labels of a section, and what failed in it, as lines. No torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from mechbench.record.config import Config, canonical_json
from mechbench.record.results import NOT_RUN, is_decided
from mechbench.report.escape import markdown, plain
from mechbench.report.labels import CODE, SETTINGS, setting, texts
from mechbench.report.rows import NAN, Row


def differences(named: Sequence[tuple[str, Row]], hidden: Sequence[str]) -> list[str]:
    """Say which settings differ between labels that were trained at one length, as Markdown.

    Args:
        named: rows with their labels.
        hidden: settings that labels do not tell apart.
    """
    at: dict[int, dict[str, Config]] = defaultdict(dict)
    for label, row in named:
        at[row.config.seqlen][label] = row.config
    absent = {*CODE, "max_seqlen", *hidden}  # the operator decides the first three
    told = [
        f"{'Budgets differ' if name == 'budget_tokens' else f'`{name}` differs'}"
        f" (trained at {length}): {text}"
        for name in SETTINGS
        if name not in absent
        for length, configs in sorted(at.items())
        if (text := _difference({k: setting(c, name) for k, c in sorted(configs.items())}))
    ]
    return told + _ends(named)


def _ends(named: Sequence[tuple[str, Row]]) -> list[str]:
    """Say where the unsolved seeds of a label had different budgets, as Markdown."""
    had: dict[tuple[int, str], dict[int, int]] = defaultdict(dict)
    for label, row in named:
        if row.status != NOT_RUN and not is_decided(row.data):
            budget = row.data["config"]["budget_tokens"]
            had[row.config.seqlen, label][row.config.seed] = budget
    return [
        f"Unsolved seeds of {markdown(label)} (trained at {length}) had budgets of "
        + ", ".join(map(str, sorted(budgets.values())))
        for (length, label), budgets in sorted(had.items())
        if len(set(budgets.values())) > 1
    ]


def _difference(values: Mapping[str, Any]) -> str:
    """Return "8 for a, b; 16 for c", the rarest value first; empty if all are the same."""
    shown = texts(values.values())
    holders: dict[str, list[str]] = defaultdict(list)
    for label, value in values.items():
        holders[shown[canonical_json(value)]].append(markdown(label))
    if len(holders) < 2:
        return ""
    ordered = sorted(holders.items(), key=lambda item: (len(item[1]), item[0]))
    named = [f"{markdown(value)} for {', '.join(labels)}" for value, labels in ordered]
    if len(ordered[-1][1]) > 2:
        named[-1] = f"{markdown(ordered[-1][0])} for all others"
    return "; ".join(named)


def failures(named: Sequence[tuple[str, Row]]) -> list[str]:
    """Say what failed at which seed, and why."""
    lines = set()
    for label, row in named:
        if row.outcome in ("ok", NOT_RUN):
            continue
        at, why = f" at {row.config.seqlen}", f"{row.status}: {row.data.get('reason') or ''}"
        if row.outcome == NAN:
            n = row.evaluation["n"] if row.evaluation else 0
            why = f"{NAN} at {row.eval_seqlen}: {row.non_finite} of {n} scored outputs not finite"
        elif not row.data.get("reason"):
            why = f"{row.status}: no reason stored"
        at = "" if f"trained at {row.config.seqlen}" in label else at
        lines.add(f"{label}{at}, seed {row.config.seed}: {plain(why, 600)}")
    return sorted(lines)
