"""From rows to sections: seeds averaged, one point a label and evaluation length. No torch."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mechbench.record.config import PROTOCOL, canonical_json
from mechbench.record.results import NOT_RUN
from mechbench.report.differences import differences, failures
from mechbench.report.intervals import Counts, bootstrap_interval
from mechbench.report.labels import called, crosses_lengths, labels, texts
from mechbench.report.leaders import Verdict, solvers, verdict
from mechbench.report.rows import NAN, OUTCOMES, Row, age, identity
from mechbench.report.solving import Solving, by_experiment
from mechbench.report.survival import Outcome
from mechbench.report.tuning import Tuning, tuning_key, tunings


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
    tuning_trials: int = 0  # cells that chose the rate, which are not among the results
    tuning_tokens: int = 0  # theirs in all
    lr_at_edge: bool = False  # the rate is the lowest or the highest tried


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
    solving: Solving

    @property
    def ranked(self) -> bool:
        """Whether it competes in accuracy: every seed ended well, and it does not look ahead."""
        return set(self.statuses) == {"ok"} and self.causal is not False and self.n_seeds > 0

    @property
    def failed(self) -> bool:
        """Whether any seed was run and did not end well."""
        return bool(set(self.statuses) - {"ok", NOT_RUN})

    @property
    def failures(self) -> str:
        """Outcomes other than "ok" with their counts, such as "diverged (1 of 3)"."""
        total = sum(self.statuses.values())
        named = {NAN: f"{NAN} at {self.eval_seqlen}"}
        return ", ".join(
            named.get(status, status) + ("" if total == 1 else f" ({count} of {total})")
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
    differences: tuple[str, ...]  # settings that are not the same for all labels, as Markdown
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

    def best(self, eval_seqlen: int) -> str | None:
        """Return the label that leads at a length, if a test tells it from every other."""
        return self.verdicts[eval_seqlen].best

    @cached_property
    def verdicts(self) -> dict[int, Verdict]:
        """What the tests tell, by evaluation length."""
        return {n: verdict([p for p in self.points if p.eval_seqlen == n]) for n in self.lengths}

    @cached_property
    def races(self) -> dict[int, Verdict]:
        """What the tests tell of solving, by trained lengths at which anything is solved."""
        return {
            n: verdict([p for p in self.points if p.eval_seqlen == p.trained_seqlen == n])
            for n in sorted({p.trained_seqlen for p in self.points})
            if self.solvers(n)
        }

    def solvers(self, seqlen: int) -> dict[str, list[Outcome]]:
        """Return the outcomes of what was trained at a length, none where nothing is solved."""
        return solvers([p for p in self.points if p.eval_seqlen == p.trained_seqlen == seqlen])

    def best_shortcut(self, eval_seqlen: int) -> tuple[str, float] | None:
        """Return name and accuracy of the best shortcut at a length, if the task has any."""
        known = self.shortcuts.get(eval_seqlen, {}).items()
        return max(sorted(known), key=lambda item: item[1], default=None)


def aggregate(rows: Sequence[Row], hidden: Sequence[str] = ()) -> list[Section]:
    """Return the sections of `rows`, sorted by setting; labels do not tell `hidden` settings.

    Results of different protocols, or of different versions of a task, are never in one section;
    titles name both where there are several, and the protocol where it is not that of today. Cells
    that chose learning rates are counted with the cost of their label, and are in nothing else.
    """
    tuning = tunings(rows)
    groups: dict[Setting, list[Row]] = defaultdict(list)
    for row in rows:
        if not row.config.tunes:
            groups[_setting(row)].append(row)
    several = len({(s.task, s.task_version, s.protocol) for s in groups}) > len(
        {s.task for s in groups}
    ) or any(s.protocol != PROTOCOL for s in groups)
    ordered = sorted(groups, key=place)
    titles = _titles(ordered, several)
    return [_section(key, titles[key], groups[key], hidden, tuning) for key in ordered]


def place(key: Setting) -> tuple[Any, ...]:
    """Return what settings are sorted by: options by value, 64 before 128."""
    options = [
        (name, value if isinstance(value, int | float) else 0, str(value))
        for name, value in json.loads(key.task_options).items()
    ]
    return key.task, options, key


def _setting(row: Row) -> Setting:
    c = row.config
    options = canonical_json(c.task_options)
    return Setting(c.task, options, c.vocab_size, c.d_model, c.n_layers, c.task_version, c.protocol)


def _section(
    key: Setting, title: str, rows: list[Row], hidden: Sequence[str], tuning: Mapping[str, Tuning]
) -> Section:
    configs = [row.config for row in rows]
    identities = [identity(config, without=hidden) for config in configs]
    names = labels(configs, identities, hidden)
    named = list(zip(names, rows, strict=True))
    groups: dict[tuple[str, int, str], list[Row]] = defaultdict(list)
    trained: dict[str, list[Row]] = defaultdict(list)
    for name, row, decides in zip(names, rows, identities, strict=True):
        groups[name, row.eval_seqlen, decides].append(row)
        trained[decides] += [row] if row.status != NOT_RUN else []
    rates = texts(config.lr for config in configs)
    results = {decides: _once(group) for decides, group in trained.items()}
    keys = dict(zip(identities, map(tuning_key, rows), strict=True))
    tuned = {decides: tuning.get(key, Tuning()) for decides, key in keys.items()}
    cost = {decides: _cost(group, rates, tuned[decides]) for decides, group in results.items()}
    solved = by_experiment(results, hidden)
    at: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        at[row.eval_seqlen].append(row)
    scored = {
        length: [row.evaluation for row in group if row.evaluation is not None]
        for length, group in sorted(at.items())
    }
    return Section(
        setting=key,
        title=title,
        points=tuple(
            _point(label, length, _once(group), cost[decides], solved[decides])
            for (label, length, decides), group in sorted(groups.items())
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
        differences=tuple(differences(named, hidden)),
        failures=tuple(failures(named)),
    )


def _titles(settings: Sequence[Setting], versioned: bool) -> dict[Setting, str]:
    """Return a title a setting, no two the same."""
    values: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for key in settings:
        for name, value in json.loads(key.task_options).items():
            values[key.task, name].append(value)
    shown = {name: texts(found) for name, found in values.items()}
    titles: dict[Setting, str] = {}
    for key in settings:
        options = sorted(json.loads(key.task_options).items())
        parts = [key.task]
        parts += [f"{name}={shown[key.task, name][canonical_json(v)]}" for name, v in options]
        vocab = called("vocab_size", key.task)
        parts += [f"{vocab} {key.vocab_size}", f"d_model {key.d_model}"]
        parts.append(f"{key.n_layers} layer{'s' if key.n_layers > 1 else ''}")
        if versioned:
            parts.append(f"task version {key.task_version}, protocol {key.protocol}")
        title = ", ".join(parts)
        same = sum(other == title or other.startswith(f"{title} #") for other in titles.values())
        titles[key] = f"{title} #{same + 1}" if same else title
    return titles


def _once(rows: Sequence[Row]) -> list[Row]:
    """Return the newest row of each seed: one that counted twice would narrow the interval."""
    found: dict[tuple[int, float], Row] = {}
    for row in rows:
        older = found.get((row.config.seed, row.config.lr))  # what was not run has every rate
        if older is None or (older.data is not row.data and age(older.data) <= age(row.data)):
            found[row.config.seed, row.config.lr] = row
    return list(found.values())


def _point(label: str, length: int, rows: list[Row], cost: Cost, solved: Solving) -> Point:
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
    statuses = [row.outcome for row in rows]
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
        statuses={s: statuses.count(s) for s in OUTCOMES if s in statuses},
        causal=all(measured) if measured else None,
        cost=cost,
        solving=solved,
    )


def _cost(rows: list[Row], rates: Mapping[str, str], tuning: Tuning) -> Cost:
    results = [row.data for row in rows]

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
        lr=", ".join(rates[canonical_json(lr)] for lr in sorted({row.config.lr for row in rows})),
        solved=sum(bool(data.get("solved")) for data in results),
        results=len(results),
        devices="; ".join(devices),
        tuning_trials=tuning.trials,
        tuning_tokens=tuning.tokens,
        lr_at_edge=any(tuning.at_edge(row.config.lr) for row in rows),
    )


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _means(tables: Iterable[dict[Any, float]]) -> dict[Any, float]:
    values: dict[Any, list[float]] = defaultdict(list)
    for table in tables:
        for key, value in table.items():
            values[key].append(value)
    return {key: statistics.fmean(values[key]) for key in sorted(values)}
