"""All leaderboards as one: operators by tasks, and the tokens that each takes to solve each."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mechbench.record.config import PROTOCOL
from mechbench.report.aggregate import Point, Section, Setting, place
from mechbench.report.solving import Solving
from mechbench.report.style import tick
from mechbench.report.tokens_plot import reached

Column = tuple[Setting, int]  # a task, and the length of training
LEAST_BOARDS = 2  # of one, its own figures say all


@dataclass(frozen=True)
class Entry:
    """What became of an operator at a task.

    Attributes:
        tokens: to solve it, the median of seeds; of one not solved, what at least half of the seeds
            had without.
        solved: whether at least half of the seeds solved it.
        solving: of all seeds.
    """

    tokens: float
    solved: bool
    solving: Solving


@dataclass(frozen=True)
class Atlas:
    """Operators by tasks.

    Attributes:
        operators: the best first: by tasks solved, then by how many times the tokens of the best of
            a task they take, the geometric mean.
        tasks: by name, then options, then length.
        entries: by operator and task; what was not run is not there.
        usual: settings that most of a task's names leave out, by the name of the task alone.
    """

    operators: tuple[str, ...]
    tasks: tuple[str, ...]
    entries: Mapping[tuple[str, str], Entry]
    usual: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def best(self, task: str) -> float:
        """Return the fewest tokens in which an operator solves a task; infinite if none does."""
        return min(
            (e.tokens for (_, at), e in self.entries.items() if at == task and e.solved),
            default=math.inf,
        )

    def ratio(self, operator: str, task: str) -> float | None:
        """Return how many times the fewest tokens it takes: infinite if it does not solve it.

        None if it was not run.
        """
        entry = self.entries.get((operator, task))
        if entry is None:
            return None
        return entry.tokens / self.best(task) if entry.solved else math.inf


def atlas(boards: Sequence[Sequence[Section]]) -> Atlas | None:
    """Return what the sections of all boards say together; None where that is too little.

    Operators stand for themselves with their defaults alone. Only results of today's protocol
    count, of causal models scored at the length that they were trained at. An operator is there if
    it was run at half of the tasks at least, a task if half of these were run at it and one solved
    it.
    """
    columns, titles = _columns(boards)
    if not columns:
        return None
    run = Counter(operator for points in columns.values() for operator in points)
    operators = {operator for operator, n in run.items() if 2 * n >= len(columns)}
    half = len(operators) / 2
    kept = [key for key, points in columns.items() if len(operators & set(points)) >= half]
    kept.sort(key=lambda key: (place(key[0]), key[1]))
    parts = {key: titles[key].split(", ") for key in kept}
    usual = usual_parts(list(parts.values()))
    names = {key: short_name(parts[key], usual, key[1]) for key in kept}
    entries = {
        (operator, names[key]): Entry(*reached(point), point.solving)
        for key in kept
        for operator, point in columns[key].items()
        if operator in operators
    }
    solved = {task for (_, task), entry in entries.items() if entry.solved}
    tasks = tuple(names[key] for key in kept if names[key] in solved)
    if not tasks or len(operators) < 2:
        return None
    there = {key: entry for key, entry in entries.items() if key[1] in solved}
    whole = Atlas((), tasks, there, usual)
    order = sorted(operators, key=lambda operator: _merit(whole, operator))
    return dataclasses.replace(whole, operators=tuple(order))


def _columns(
    boards: Sequence[Sequence[Section]],
) -> tuple[dict[Column, dict[str, Point]], dict[Column, str]]:
    """Return operators with their points, and a title, a task and length; nothing of one board.

    What one operator alone was run at compares its variants. Of an operator that several boards
    hold at one task, it is the first's, of those that ask how a task is learnt if there are any,
    not what is left of it at other lengths.
    """
    columns: dict[Column, dict[str, Point]] = defaultdict(dict)
    titles: dict[Column, str] = {}
    used = set()
    every = [(number, section) for number, sections in enumerate(boards) for section in sections]
    for number, section in sorted(every, key=lambda found: found[1].crossing):
        for point in section.points if section.setting.protocol == PROTOCOL else ():
            length = point.trained_seqlen
            plain = point.label.removesuffix(f", trained at {length}") == point.operator
            own = point.eval_seqlen == length and point.causal is not False
            if plain and own and point.solving.cells:
                columns[section.setting, length].setdefault(point.operator, point)
                titles.setdefault((section.setting, length), section.title)
                used.add(number)
    if len(used) < LEAST_BOARDS:
        return {}, {}
    return {key: points for key, points in columns.items() if len(points) > 1}, titles


def _merit(found: Atlas, operator: str) -> tuple[float, float, str]:
    ratios = [r for task in found.tasks if (r := found.ratio(operator, task)) is not None]
    done = [math.log(r) for r in ratios if math.isfinite(r)]
    share = len(done) / len(ratios) if ratios else 0.0
    return -share, statistics.fmean(done) if done else math.inf, operator


def usual_parts(titles: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Return what more than half of the titles of a task have in common, in their order.

    Args:
        titles: parts of each, the first of them the task.
    """
    of_task: dict[str, list[Sequence[str]]] = defaultdict(list)
    for task, *settings in titles:
        of_task[task].append(settings)
    usual = {}
    for task, found in of_task.items():
        n = Counter(part for settings in found for part in settings)
        usual[task] = [part for part in n if 2 * n[part] > len(found)]
    return usual


def short_name(title: Sequence[str], usual: Mapping[str, Sequence[str]], length: int) -> str:
    """Return a short name of a task at a length, without what is usual."""
    task, *settings = title
    return ", ".join([task, *(p for p in settings if p not in usual[task])]) + f" at {tick(length)}"
