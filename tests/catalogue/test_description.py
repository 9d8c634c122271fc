from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import pytest

from mechbench.catalogue.description import arguments, description
from mechbench.catalogue.options import type_text
from mechbench.catalogue.registry import CATALOGUES, Entry
from mechbench.filters.base import RESERVED as OF_FILTERS
from mechbench.operators.base import RESERVED as OF_OPERATORS

RESERVED = {"operator": OF_OPERATORS, "filter": OF_FILTERS}
BUILT_IN = [
    (kind, name) for kind in RESERVED for name in CATALOGUES[kind].built_in()
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), BUILT_IN)
def test_every_option_of_what_is_built_in_has_a_meaning(kind: str, name: str) -> None:
    registry = CATALOGUES[kind]
    text = description(registry.entry(name), registry.load(name), RESERVED[kind])
    assert max(map(len, text.splitlines())) <= 80
    lines = text.splitlines()
    options = [i for i, line in enumerate(lines) if line.startswith("  ") and ", default " in line]
    assert all(lines[i + 1].startswith("    ") for i in options if lines[i][2] != " ")
    assert registry.entry(name).source in " ".join(text.split())


def test_arguments_of_a_docstring() -> None:
    doc = """Do it.

Args:
    first: one line.
    second (int): of two
        lines: here.
    **rest: what else.

Raises:
    ValueError: never.
"""
    assert arguments(doc) == {
        "first": "one line.", "second": "of two lines: here.", "rest": "what else.",
    }  # fmt: skip
    assert arguments("Do it.") == {}


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "int"), (float | None, "float or none"), (Literal["a", "b"], "a or b"),
        (Annotated[bool, "x"], "bool"), (Any, ""), (Sequence[int], "Sequence[int]"),
    ],
)  # fmt: skip
def test_types_in_words(annotation: Any, text: str) -> None:
    assert type_text(annotation) == text


def test_what_a_component_does_not_say_is_left_out() -> None:
    def plain(d_model: int, max_seqlen: int) -> Callable[[], None]: ...

    text = description(Entry("plain", "operator", "mine.py"), plain, OF_OPERATORS)
    assert text == "plain (operator, from mine.py):\n\nNo options."
