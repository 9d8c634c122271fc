"""The page that says how true each operator is to its source."""

from __future__ import annotations

import re

import pytest

from mechbench.catalogue.options import parse_pairs
from mechbench.catalogue.registry import OPERATORS
from mechbench.operators.base import operator_options
from mechbench.operators.fidelity import Fidelity
from operators.fidelity_page import FILE, built_in, page, row


def test_page_holds_what_the_operators_say() -> None:
    text = FILE.read_text(encoding="utf-8")
    assert page(text) == text, "run `python scripts/refresh_fidelity.py`"


@pytest.mark.parametrize("name", built_in())
def test_every_operator_states_its_fidelity(name: str) -> None:
    stated = OPERATORS.load(name).fidelity
    assert all(isinstance(of, Fidelity) for of in stated)
    assert stated[0].variant == ""
    assert all(row(name, of).count("|") == 5 for of in stated)


@pytest.mark.parametrize("name", built_in())
def test_options_that_the_table_names_exist(name: str) -> None:
    for of in OPERATORS.load(name).fidelity:
        options = operator_options(name, parse_pairs(filter(None, of.variant.split(", "))))
        assert set(re.findall(r"`(\w+)=\w+", row(name, of))) <= set(options)


def test_rows_are_those_of_a_table() -> None:
    assert row("new", Fidelity("a loop", 2e-9)) == "| `new` | a loop | 2e-9 | none known |\n"
    of = Fidelity("code", None, "no dropout", "order=3")
    assert row("new", of) == "| `new`, `order=3` | code |  | no dropout |\n"
