"""From rows to sections: seeds averaged, one point a label and evaluation length. No torch."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mechbench.report.collect import Row
from mechbench.report.intervals import Counts, bootstrap_interval, ties
from mechbench.report.labels import SETTINGS, crosses_lengths, labels, setting, show
from mechbench.results import NOT_RUN, STATUSES
from mechbench.spec import Config, canonical_json


@dataclass(frozen=True, order=True)
class Setting:
    """What results must share to be compared."""

    task: str
    task_options: str  # canonical JSON
    vocab_size: int
    d_model: int
    n_layers: int
    task_version: int
    protocol: int


@dataclass(frozen=True)
class Cost:
    """What a label cost at one trained length: means over its results, None if not measured."""

    parameters: float | None
    train_tokens: float | None
    budget_tokens: float | None
    tokens_per_s: float | None
    flops_per_token: float | None
    train_flops: float | None
    peak_memory_mib: float | None
    train_s: float | None
    steps: float | None
    lr: str
    solved: int
    results: int
    devices: str


@dataclass(frozen=True)
class Point:
    """One label at one evaluation length; accuracies are None where no seed was scored."""

    label: str
    operator: str
    trained_seqlen: int
    eval_seqlen: int
    n_seeds: int  # in the mean
    counts: dict[int, Counts]  # by seed, of those in the mean
    accuracy: float | None
    ci_low: float | None
    ci_high: float | None
    dense_accuracy: float | None
    statuses: dict[str, int]
    causal: bool | None
    cost: Cost

    @property
    def ranked(self) -> bool:
        """Whether it competes: every seed ended well, and it does not look ahead."""
        return set(self.statuses) == {"ok"} and self.causal is not False and self.n_seeds > 0

    @property
    def failed(self) -> bool:
        """Whether any seed was run and did not end well."""
        return bool(set(self.statuses) - {"ok", NOT_RUN})

    @property
    def failures(self) -> str:
        """Statuses other than "ok" with their counts, such as "diverged (1 of 3)"."""
        total = sum(self.statuses.values())
        return ", ".join(
            status if total == 1 else f"{status} ({count} of {total})"
            for status, count in self.statuses.items()
            if status != "ok"
        )


@dataclass(frozen=True)
class Section:
    """Results of one setting. `points` are sorted by label, then length."""

    setting: Setting
    title: str
    points: tuple[Point, ...]
    chance: dict[int, float]  # by evaluation length, like the next two
    shortcuts: dict[int, dict[str, float]]
    required_context: dict[int, dict[int, float]]
    crossing: bool  # some model is scored at a length that it was not trained at
    differences: tuple[str, ...]  # settings that are not the same for all labels
    failures: tuple[str, ...]

    @cached_property
    def lengths(self) -> list[int]:
        """Evaluation lengths, ascending."""
        return sorted({point.eval_seqlen for point in self.points})

    @cached_property
    def curves(self) -> dict[str, list[Point]]:
        """Points by label: best mean accuracy first, then what is not causal, then failures."""
        curves: dict[str, list[Point]] = defaultdict(list)
        for point in self.points:
            curves[point.label].append(point)

        def place(item: tuple[str, list[Point]]) -> tuple[bool, bool, float, str]:
            accuracies = [p.accuracy for p in item[1] if p.accuracy is not None]
            noncausal = any(p.causal is False for p in item[1])
            return not accuracies, noncausal, -(_mean(accuracies) or 0.0), item[0]

        return dict(sorted(curves.items(), key=place))

    def best(self, eval_seqlen: int) -> set[str]:
        """Return the labels that lead at a length: the best, and those that the test ties."""
        return self._best[eval_seqlen]

    @cached_property
    def _best(self) -> dict[int, set[str]]:
        out: dict[int, set[str]] = {length: set() for length in self.lengths}
        for length in out:
            ranked = [p for p in self.points if p.eval_seqlen == length and p.ranked]
            if ranked:
                top = max(ranked, key=lambda p: p.accuracy or 0.0)
                out[length] = {
                    p.label
                    for p in ranked
                    if p.accuracy == top.accuracy or ties(top.counts, p.counts)
                }
        return out

    def best_shortcut(self, eval_seqlen: int) -> tuple[str, float] | None:
        """Return name and accuracy of the best shortcut at a length, if the task has any."""
        known = self.shortcuts.get(eval_seqlen, {}).items()
        return max(sorted(known), key=lambda item: item[1], default=None)


def aggregate(rows: Sequence[Row], hidden: Sequence[str] = ()) -> list[Section]:
    """Return the sections of `rows`, sorted by setting; labels do not tell `hidden` settings."""
    groups: dict[Setting, list[Row]] = defaultdict(list)
    for row in rows:
        groups[_setting(row)].append(row)
    several = len({(s.task, s.task_version, s.protocol) for s in groups}) > len(
        {s.task for s in groups}
    )
    return [_section(key, groups[key], several, hidden) for key in sorted(groups, key=_place)]


def _place(key: Setting) -> tuple[Any, ...]:
    """Sort options by value: 64 before 128."""
    options = [
        (name, value if isinstance(value, int | float) else 0, str(value))
        for name, value in json.loads(key.task_options).items()
    ]
    return key.task, options, key


def _setting(row: Row) -> Setting:
    c = row.config
    options = canonical_json(c.task_options)
    return Setting(c.task, options, c.vocab_size, c.d_model, c.n_layers, c.task_version, c.protocol)


def _section(key: Setting, rows: list[Row], versioned: bool, hidden: Sequence[str] = ()) -> Section:
    configs = [row.config for row in rows]
    named = list(zip(labels(configs, hidden), rows, strict=True))
    costs: dict[tuple[str, int], list[Row]] = defaultdict(list)
    groups: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for label, row in named:
        costs[label, row.config.seqlen] += [row] if row.status != NOT_RUN else []
        groups[label, row.eval_seqlen].append(row)
    cost = {key: _cost(group) for key, group in costs.items()}
    at: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        at[row.eval_seqlen].append(row)
    scored = {
        length: [row.evaluation for row in group if row.evaluation is not None]
        for length, group in sorted(at.items())
    }
    return Section(
        setting=key,
        title=_title(key, rows[0].config.task_options, versioned),
        points=tuple(
            _point(label, length, group, cost[label, group[0].config.seqlen])
            for (label, length), group in sorted(groups.items())
        ),
        chance={
            length: statistics.fmean(row.data["chance"] for row in at[length]) for length in scored
        },
        shortcuts={
            length: _means(e["shortcuts"] for e in found) for length, found in scored.items()
        },
        required_context={
            length: _means(
                {int(w): accuracy for w, accuracy in e["required_context"].items()} for e in found
            )
            for length, found in scored.items()
        },
        crossing=crosses_lengths(configs),
        differences=tuple(_differences(named, hidden)),
        failures=tuple(_failures(named)),
    )


def _title(key: Setting, task_options: dict[str, Any], versioned: bool) -> str:
    parts = [key.task, *(f"{name}={show(v)}" for name, v in sorted(task_options.items()))]
    parts += [f"vocab_size {key.vocab_size}", f"d_model {key.d_model}"]
    parts.append(f"{key.n_layers} layer{'s' if key.n_layers > 1 else ''}")
    if versioned:
        parts.append(f"task version {key.task_version}, protocol {key.protocol}")
    return ", ".join(parts)


def _point(label: str, length: int, rows: list[Row], cost: Cost) -> Point:
    counted = [row for row in rows if row.accuracy is not None]
    evaluations = [row.evaluation for row in counted if row.evaluation is not None]
    accuracies = [float(e["accuracy"]) for e in evaluations]
    counts = {
        row.config.seed: (int(e["correct"]), int(e["n"]))
        for row, e in zip(counted, evaluations, strict=True)
    }
    low, high = None, None
    if counts:
        low, high = bootstrap_interval([counts[seed] for seed in sorted(counts)])
    measured = [row.data.get("causal") for row in rows if row.data.get("causal") is not None]
    statuses = [row.status for row in rows]
    return Point(
        label=label,
        operator=rows[0].config.operator,
        trained_seqlen=rows[0].config.seqlen,
        eval_seqlen=length,
        n_seeds=len(accuracies),
        counts=counts,
        accuracy=_mean(accuracies),
        ci_low=low,
        ci_high=high,
        dense_accuracy=_mean([e["dense_accuracy"] for e in evaluations]),
        statuses={s: statuses.count(s) for s in (*STATUSES, NOT_RUN) if s in statuses},
        causal=all(measured) if measured else None,
        cost=cost,
    )


def _cost(rows: list[Row]) -> Cost:
    results = list({row.data["cell_id"]: row.data for row in rows}.values())

    def mean(name: str) -> float | None:
        return _mean([data[name] for data in results if data.get(name) is not None])

    flops = [
        data["flops_per_token"] * data["train_tokens"]
        for data in results
        if data.get("flops_per_token") is not None and data.get("train_tokens") is not None
    ]
    seconds = [(data.get("seconds") or {}).get("train") for data in results]
    devices = sorted({str(data["provenance"].get("device")) for data in results})
    return Cost(
        parameters=mean("parameters"),
        train_tokens=mean("train_tokens"),
        budget_tokens=_mean([float(row.config.budget_tokens) for row in rows]),
        tokens_per_s=mean("tokens_per_s"),
        flops_per_token=mean("flops_per_token"),
        train_flops=_mean(flops),
        peak_memory_mib=mean("peak_memory_mib"),
        train_s=_mean([s for s in seconds if s is not None]),
        steps=mean("steps"),
        lr=", ".join(f"{lr:g}" for lr in sorted({row.config.lr for row in rows})),
        solved=sum(bool(data.get("solved")) for data in results),
        results=len(results),
        devices="; ".join(devices),
    )


def _differences(named: list[tuple[str, Row]], hidden: Sequence[str]) -> list[str]:
    """Say which settings differ between labels that were trained at one length."""
    at: dict[int, dict[str, Config]] = defaultdict(dict)
    for label, row in named:
        at[row.config.seqlen][label] = row.config
    return [
        f"{'Budgets differ' if name == 'budget_tokens' else f'`{name}` differs'}"
        f" (trained at {length}): {text}"
        for name in SETTINGS
        if name not in ("plugins", *hidden)  # another operator lies in another file anyway
        for length, configs in sorted(at.items())
        if (text := _difference({k: setting(c, name) for k, c in sorted(configs.items())}))
    ]


def _difference(values: dict[str, str]) -> str:
    """Return "8 for a, b; 16 for c", the rarest value first; empty if all are the same."""
    holders: dict[str, list[str]] = defaultdict(list)
    for label, value in values.items():
        holders[value].append(label)
    if len(holders) < 2:
        return ""
    ordered = sorted(holders.items(), key=lambda item: (len(item[1]), item[0]))
    named = [f"{value} for {', '.join(labels)}" for value, labels in ordered]
    if len(ordered[-1][1]) > 2:
        named[-1] = f"{ordered[-1][0]} for all others"
    return "; ".join(named)


def _failures(named: list[tuple[str, Row]]) -> list[str]:
    lines = set()
    for label, row in named:
        if row.status not in ("ok", NOT_RUN):
            reason = " ".join(str(row.data.get("reason") or "no reason stored").split())
            at = "" if f"trained at {row.config.seqlen}" in label else f" at {row.config.seqlen}"
            lines.add(f"{label}{at}, seed {row.config.seed}: {row.status}: {reason}")
    return sorted(lines)


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _means(tables: Iterable[dict[Any, float]]) -> dict[Any, float]:
    values: dict[Any, list[float]] = defaultdict(list)
    for table in tables:
        for key, value in table.items():
            values[key].append(value)
    return {key: statistics.fmean(values[key]) for key in sorted(values)}
