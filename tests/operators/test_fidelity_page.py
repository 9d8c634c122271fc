"""The page that says how true each operator is to its source."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mechbench.catalogue.registry import OPERATORS

PAGE = (Path(__file__).parents[2] / "docs" / "fidelity.md").read_text(encoding="utf-8")
BUILT_IN = [n for n in OPERATORS.names() if OPERATORS.entry(n).origin == "built-in"]


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_operator_has_a_row(name: str) -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert any(f"`{name}`" in row.split("|")[1] for row in rows)
    assert all(row.count("|") == 5 for row in rows)


def test_options_that_the_table_names_exist() -> None:
    table = "\n".join(line for line in PAGE.splitlines() if line.startswith("| `"))
    named = re.findall(r"`(\w+)=\w+", table)
    known = {key for name in BUILT_IN for key in vars_of(name)}
    assert named
    assert set(named) <= known


def vars_of(name: str) -> set[str]:
    from mechbench.operators.base import operator_options

    return set(operator_options(name, {}))
