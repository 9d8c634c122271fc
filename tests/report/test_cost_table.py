from __future__ import annotations

from typing import Any

from made_results import made_result

from mechbench.report.aggregate import Section, aggregate
from mechbench.report.cost_table import COST, TRAINING, cost_tables
from mechbench.report.rows import Row, rows_of
from mechbench.report.selection import selected


def made(operator: str, **changes: Any) -> list[Row]:
    data = made_result(operator=operator)
    return rows_of(data | changes)


def section(*rows: list[Row]) -> Section:
    (found,) = aggregate(selected([row for group in rows for row in group]))
    return found


def names(found: Section) -> dict[str, str]:
    return {label: label for label in found.curves}


def test_what_is_the_same_stands_once_and_the_rest_in_two_tables() -> None:
    found = section(
        made("hyena", parameters=2000, steps=7),
        made("h3", parameters=1000, steps=9, tokens_per_s=None),
    )
    (costs, training), same = cost_tables(found, names(found))
    assert costs == [
        [COST[0], "parameters", "tokens/s"], ["h3", "1,000", "-"], ["hyena", "2,000", "200,000"],
    ]  # fmt: skip
    assert training == [[TRAINING[0], "steps to stop"], ["h3", "9"], ["hyena", "7"]]
    assert same[:2] == ["trained at 64", "FLOPs/token 1,500,000"]
    assert "device CPU, 1 threads" in same
    assert not any(text.startswith("trials") for text in same)  # of none there is nothing to say


def test_one_row_keeps_its_columns() -> None:
    found = section(made("hyena"))
    (costs, training), same = cost_tables(found, names(found))
    assert costs[0] == list(COST)
    assert training[0] == [name for name in TRAINING if "trials" not in name]
    assert costs[1][:3] == ["hyena", "64", "1,234"]
    assert same == []


def test_rows_that_are_all_the_same_leave_a_sentence() -> None:
    found = section(made("hyena"), made("h3"))
    tables, same = cost_tables(found, names(found))
    assert tables == []
    assert "parameters 1,234" in same
