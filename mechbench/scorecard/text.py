"""A scorecard as Markdown, LaTeX and JSON. No torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from mechbench.record.config import PROTOCOL
from mechbench.report.escape import markdown
from mechbench.report.solving_table import solved_after
from mechbench.report.style import amount
from mechbench.report.table import markdown_table
from mechbench.scorecard.card import Card, Task
from mechbench.scorecard.known import dates

HEAD = ("task", "solved", "tokens to solve", "best known", "median known", "place", "not solved")
_LATEX = {"&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_", "$": r"\$", "~": r"\textasciitilde{}"}


def lines(card: Card, operator: str) -> list[list[str]]:
    """Return the lines of an operator's table, a task each, the head first."""
    return [list(HEAD), *(_line(task, operator) for task in card.tasks)]


def to_markdown(card: Card) -> str:
    """Return the whole card."""
    blocks = [
        f"# Scorecard: {markdown(', '.join((*card.own, *card.unsound)))}",
        _introduction(card),
    ]
    for operator, reason in card.unsound.items():
        blocks.append(f"{markdown(operator)} is not sound, so it is not ranked: {markdown(reason)}")
    for operator in card.own:
        blocks += [f"## {markdown(operator)}", *_of(card, operator)]
    return "\n\n".join(blocks) + "\n"


def to_latex(card: Card) -> str:
    """Return the tables, one an operator, for the package booktabs."""
    found = []
    for operator in card.own:
        head, *body = lines(card, operator)
        rows = [" & ".join(map(_latex, line)) + r" \\" for line in body]
        found += [
            f"% {operator}, mechbench, protocol {PROTOCOL}",
            r"\begin{tabular}{l" + "r" * (len(head) - 1) + "}",
            r"\toprule",
            " & ".join(map(_latex, head)) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
        ]
    return "\n".join(found) + "\n"


def to_dict(card: Card) -> dict[str, Any]:
    """Return what card.json holds; tokens to solve are null where too few seeds are solved."""
    return {
        "schema_version": 1,
        "protocol": PROTOCOL,
        "own": list(card.own),
        "known": list(card.known),
        "unsound": dict(card.unsound),
        "nearest": {operator: dict(card.nearest(operator)) for operator in card.own},
        "tasks": [
            {
                "name": task.name,
                "title": task.title,
                "operators": {
                    name: {
                        "solved": entry.solving.solved,
                        "seeds": len(entry.solving.cells),
                        "tokens": entry.tokens if entry.solved else None,
                        "given_up_at": None if entry.solved else entry.tokens,
                        "held_up_to": task.held.get(name),
                        "place": _place(task, name),
                    }
                    for name, entry in task.entries.items()
                },
            }
            for task in card.tasks
        ],
    }


def _introduction(card: Card) -> str:
    oldest, newest = dates(card.known_rows)
    devices = sorted({str(r.data["provenance"].get("device")) for r in card.known_rows})
    own = sorted({str(r.data["provenance"].get("device")) for r in card.own_rows})
    known = (
        f"Known are the stored results of {len(card.known)} operators: {', '.join(card.known)} "
        f"({oldest} to {newest}, {', '.join(devices)})."
        if card.known
        else f"No stored result is of these tasks and protocol {PROTOCOL}: nothing is ranked."
    )
    return (
        f"{markdown(known)} Own results: {markdown(', '.join(own) or 'none')}. Learning rates are "
        "chosen by one rule, with seeds that are not reported. Tokens to solve are the median of "
        "seeds; `>`: not solved by then, which is not yet, unless it is flat. A place is by these "
        "tokens, 1 the best; what was given up keeps every place open that it may still get. In "
        "brackets the 95 % interval, by drawing seeds again."
    )


def _of(card: Card, operator: str) -> list[str]:
    blocks = [
        f"Solves {card.solved(operator)} of {len(card.tasks)} tasks.",
        markdown_table([_escaped(line) for line in lines(card, operator)]),
    ]
    if near := card.nearest(operator):
        named = ", ".join(f"{name} ({times:.1f} times)" for name, times in near)
        blocks.append(
            f"Most alike, by how many times tokens to solve differ at a task: {markdown(named)}."
        )
    failed = [text for task in card.tasks for text in task.failures.get(operator, ())]
    blocks += [f"- {markdown(text)}" for text in failed]
    if cost := _cost(card, operator):
        blocks.append(cost)
    return blocks


def _escaped(line: Sequence[str]) -> list[str]:
    """Return a line for Markdown: the cells that hold names are escaped."""
    named = (HEAD.index("task"), HEAD.index("best known"))
    return [markdown(cell) if i in named and cell != "-" else cell for i, cell in enumerate(line)]


def _line(task: Task, operator: str) -> list[str]:
    name = task.name
    if operator in task.held:
        name += f", above 90% up to {task.held[operator] or '-'}"
    entry = task.entries.get(operator)
    if entry is None:
        return [name, "failed", "-", *_known(task), "-", "-"]
    solving = entry.solving
    accuracy = [] if solving.unsolved is None else [f"{100 * solving.unsolved[0]:.1f}%"]
    return [
        name,
        f"{solving.solved} of {len(solving.cells)}",
        solved_after(solving),
        *_known(task),
        _place(task, operator) or "-",
        ", ".join([*accuracy, *solving.fates]) or "-",
    ]


def _known(task: Task) -> tuple[str, str]:
    """Return the best and the median of the known operators."""
    known = task.known
    solved = {name: entry.tokens for name, entry in known.items() if entry.solved}
    if not solved:
        return ("none" if known else "-"), "-"
    best = min(solved, key=lambda name: (solved[name], name))
    every = [solved.get(name, math.inf) for name in known]
    middle = statistics.median_low(every)
    text = amount(middle) if math.isfinite(middle) else "not solved"
    return f"{amount(solved[best])} {best}", text


def _place(task: Task, operator: str) -> str | None:
    found = task.ranks.get(operator)
    if found is None:
        return None
    place = str(found.first)
    if found.last != found.first:
        place += f" to {found.last}"
    return f"{place} [{found.low}, {found.high}] of {found.of}"


def _cost(card: Card, operator: str) -> str:
    """Say what an operator costs at the first task, beside the known ones."""
    for task in card.tasks:
        cost = task.costs.get(operator)
        if cost is None:
            continue
        known = [task.costs[name] for name in task.known]
        said = [
            f"{title} {amount(value)}" + _range([getattr(c, field) for c in known])
            for title, field in (("parameters", "parameters"), ("FLOPs a token", "flops_per_token"))
            if (value := getattr(cost, field)) is not None
        ]
        if cost.tokens_per_s is not None:
            said.append(f"{amount(cost.tokens_per_s)} tokens/s in training ({cost.devices})")
        return f"Cost at {markdown(task.name)}: {markdown(', '.join(said))}."
    return ""


def _range(values: Sequence[float | None]) -> str:
    found = [value for value in values if value is not None]
    return f" (known: {amount(min(found))} to {amount(max(found))})" if found else ""


def _latex(text: str) -> str:
    shown = "".join(_LATEX.get(char, char) for char in text)
    return shown.replace(">", "$>$").replace("<", "$<$")
