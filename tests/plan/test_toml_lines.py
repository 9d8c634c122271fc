from __future__ import annotations

import tomllib
from typing import Any

from mechbench.plan.toml_lines import Key, key_lines, line_of

TEXT = '''# a comment
title = "x"
long = [
  1, # one
  { a = 2 },
]
text = """
[[no.header]]
no = "key"
"""

[grid]
seqlen = [1, 2]
operator.filter = ["a"]

[[tasks]]
name = "r"

[[tasks]]
name = "s"
options = { deep = { er = 1 } }
[tasks.settings]
lr = 1
[[tasks.more]]
[[tasks.more]]
"quo.ted" = 1
'''


def test_every_key_stands_where_its_statement_begins() -> None:
    lines = key_lines(TEXT)
    assert lines["title",] == 2
    assert lines["long",] == lines["long", 1, "a"] == 3
    assert lines["text",] == 7
    assert ("no",) not in lines
    assert lines["grid",] == 12
    assert lines["grid", "operator", "filter"] == 14
    assert lines["tasks", 0] == 16
    assert lines["tasks", 0, "name"] == 17
    assert lines["tasks", 1, "options", "deep", "er"] == 21
    assert lines["tasks", 1, "settings", "lr"] == 23
    assert lines["tasks", 1, "more", 1, "quo.ted"] == 26


def paths(value: Any, path: Key = ()) -> set[Key]:
    found = {path} if path else set()
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            found |= paths(inner, (*path, key))
    return found


def test_nothing_that_tomllib_finds_is_without_a_line() -> None:
    lines = key_lines(TEXT)
    found = paths(tomllib.loads(TEXT))
    assert len(found) > 20
    assert found <= set(lines)


def test_unknown_path_has_the_line_of_what_is_around_it() -> None:
    lines = key_lines(TEXT)
    assert line_of(lines, ("grid", "seqlen", 7)) == 13
    assert line_of(lines, ("tasks", 1, "absent")) == 19
    assert line_of(lines, ("absent",)) is None
