"""One's own results beside the stored ones of known operators, task by task. No torch."""

from __future__ import annotations

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from mechbench.leaderboard.atlas import Entry, short_name, usual_parts
from mechbench.report.aggregate import Cost, Section, aggregate
from mechbench.report.held import held_up_to
from mechbench.report.rows import Row
from mechbench.report.selection import selected
from mechbench.report.tokens_plot import reached
from mechbench.scorecard.known import task_of
from mechbench.scorecard.ranks import Rank, rank

NEAREST = 3  # known operators that are named as the most alike


@dataclass(frozen=True)
class Task:
    """What became of all operators at one task.

    Attributes:
        name: short, told from the other tasks of a card.
        title: what the name leaves out, too.
        entries: by operator, of those that were trained.
        held: lengths up to which accuracy stays above 90 percent, by operator; None: nowhere. Empty
            where nothing is scored beyond the length of training.
        costs: by operator.
        failures: what failed with which seed and why, by operator.
        own: one's own operators.
    """

    name: str
    title: str
    entries: Mapping[str, Entry]
    held: Mapping[str, int | None]
    costs: Mapping[str, Cost]
    failures: Mapping[str, Sequence[str]]
    own: Sequence[str]

    @cached_property
    def known(self) -> dict[str, Entry]:
        """The entries of the operators that are not one's own."""
        return {name: entry for name, entry in self.entries.items() if name not in self.own}

    @cached_property
    def ranks(self) -> dict[str, Rank]:
        """The places of one's own operators, each among the known ones; none where it has none."""
        others = [entry.solving.outcomes for entry in self.known.values()]
        found = {
            name: rank(self.entries[name].solving.outcomes, others)
            for name in self.own
            if name in self.entries
        }
        return {name: place for name, place in found.items() if place is not None}


@dataclass(frozen=True)
class Card:
    """One's own operators beside known ones.

    Attributes:
        own: the operators that were asked for, those alone that are sound.
        known: the others.
        tasks: in the order of the suite.
        unsound: what the check says of operators that were asked for and not trained.
        own_rows, known_rows: what all this is made of.
    """

    own: tuple[str, ...]
    known: tuple[str, ...]
    tasks: tuple[Task, ...]
    unsound: Mapping[str, str]
    own_rows: Sequence[Row]
    known_rows: Sequence[Row]

    def solved(self, operator: str) -> int:
        """Return at how many tasks half of an operator's seeds are solved."""
        return sum(t.entries[operator].solved for t in self.tasks if operator in t.entries)

    def nearest(self, operator: str) -> list[tuple[str, float]]:
        """Return the known operators most alike, and how many times their tokens differ.

        The geometric mean over tasks that both were trained at. What is not solved counts with the
        tokens it was given, where the other needed more than them, they do not differ.
        """
        found = []
        for other in self.known:
            both = [t for t in self.tasks if operator in t.entries and other in t.entries]
            if both:
                apart = [_apart(t.entries[operator], t.entries[other]) for t in both]
                found.append((other, math.exp(statistics.fmean(apart))))
        return sorted(found, key=lambda item: (item[1], item[0]))[:NEAREST]


def make_card(
    own: Sequence[Row], known: Sequence[Row], unsound: Mapping[str, str] | None = None
) -> Card:
    """Return the card of rows; known ones of an operator that is among the own are left out.

    Args:
        own: of today's results, with the cells that chose learning rates, in the order of tasks.
        known: stored ones.
        unsound: operators that were not trained, and why.
    """
    names = tuple(dict.fromkeys(row.config.operator for row in own))
    others = [row for row in known if row.config.operator not in names]
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in (*own, *others):
        groups[task_of(row.config)].append(row)
    wanted = dict.fromkeys(task_of(row.config) for row in own)
    sections = [s for key in wanted for s in aggregate(selected(groups[key]), hidden=("lr",))]
    parts = [section.title.split(", ") for section in sections]
    usual = usual_parts(parts)
    tasks = [
        _task(section, short_name(part, usual, _length(section)), names)
        for section, part in zip(sections, parts, strict=True)
    ]
    there = sorted({name for task in tasks for name in task.known})
    kept = [row for row in others if task_of(row.config) in wanted]
    return Card(names, tuple(there), tuple(tasks), dict(unsound or {}), own, kept)


def _task(section: Section, name: str, own: Sequence[str]) -> Task:
    there = [p for p in section.points if p.eval_seqlen == p.trained_seqlen and p.solving.cells]
    there = [p for p in there if p.operator in own or p.causal is not False]
    curves = section.curves if section.crossing else {}
    failures: dict[str, list[str]] = defaultdict(list)
    for text in section.failures:
        failures[re.split(r" \(|, | at ", text)[0]].append(text)
    return Task(
        name=name,
        title=section.title,
        entries={p.operator: Entry(*reached(p), p.solving) for p in there},
        held={points[0].operator: held_up_to(points) for points in curves.values()},
        costs={p.operator: p.cost for p in there},
        failures=failures,
        own=own,
    )


def _length(section: Section) -> int:
    return section.points[0].trained_seqlen


def _apart(one: Entry, other: Entry) -> float:
    """Return the logarithm of how many times the tokens of two entries differ, at least."""
    if one.solved and other.solved:
        return abs(math.log(one.tokens / other.tokens))
    if one.solved == other.solved:
        return 0.0
    solved, unsolved = (one, other) if one.solved else (other, one)
    return max(0.0, math.log(unsolved.tokens / solved.tokens))
