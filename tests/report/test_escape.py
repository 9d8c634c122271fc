from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechbench.report.escape import csv_cell, csv_text, from_csv_cell, html_text, markdown, plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("hyena (order=2)", "hyena (order=2)"),
        (" a\n b\t\r\n c ", "a b c"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("abc\u202egnp", r"abc\u202egnp"),  # would turn the line round
        ("hy\u200bena", r"hy\u200bena"),  # a twin by spacing
        ("a\xa0b\u2003c", r"a\xa0b\u2003c"),
        ("\u3164", r"\u3164"),
        ("a\u2028b\x85c\x00d", r"a\u2028b\x85c\x00d"),
        ("\ud800", r"\ud800"),
        ("δ→λ, 算子", "δ→λ, 算子"),
        (None, "None"),
    ],
)
def test_one_line_of_visible_characters(text: object, shown: str) -> None:
    assert plain(text) == shown


def test_long_text_keeps_both_ends() -> None:
    assert plain("abcdefghij", 10) == "abcdefghij"
    assert plain("abcdefghijk", 5) == "ab…jk"
    assert plain("abcdefghijk", 6) == "ab…ijk"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("hyena (filter=explicit, min_distance=0), lr 1e-3", None),
        ("2.11.0+cu130; Linux x86_64; CPU, 1 threads", None),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("[click](javascript:x)", r"\[click\](javascript:x)"),
        ("![a](b)", r"!\[a\](b)"),
        ("a|b", r"a\|b"),
        (r"a\|b", r"a\\\|b"),
        ("`code` **bold** ~~gone~~ $x$", r"\`code\` \*\*bold\*\* \~\~gone\~\~ \$x\$"),
        ("_a_ b_c _", r"\_a\_ b_c \_"),
        ("__init__", r"\_\_init\_\_"),
        ("see https://x.y or WWW.x.y", r"see https\://x.y or WWW\.x.y"),
        ("&lt;b&gt; a & b; &#60;", "&amp;lt;b&amp;gt; a & b; &amp;#60;"),
        ("# heading\n## more", r"\# heading ## more"),
        ("- item", r"\- item"),
        ("1. item", r"1\. item"),
        ("1.5 times", None),
        ("\x1b", r"\\x1b"),
    ],
)
def test_markdown_shows_it_as_it_is(text: str, shown: str | None) -> None:
    assert markdown(text) == (text if shown is None else shown)


def test_html_shows_it_as_it_is() -> None:
    assert html_text('<b a="1">\u202e') == r"&lt;b a=&quot;1&quot;&gt;\u202e"


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+x", "'+x"),
        ("-x", "'-x"),
        ("@SUM(A1)", "'@SUM(A1)"),
        (" \t=1", "'=1"),
        ("'=1", "''=1"),
        ("'tis", "'tis"),
        ("-1.5e-3", "-1.5e-3"),
        ("-1+cmd", "'-1+cmd"),
        ("a\nb", "a b"),
        (-1.5, -1.5),
        (None, None),
        ("0.001, 0.002", "0.001, 0.002"),
    ],
)
def test_no_cell_is_a_formula_and_numbers_stay(value: object, cell: object) -> None:
    assert csv_cell(value) == cell


@given(st.text(st.sampled_from("'=+-@1ax. "), max_size=6))
def test_a_cell_gives_its_line_back(text: str) -> None:
    assert from_csv_cell(csv_cell(text)) == plain(text)


def test_table_has_its_header_from_the_first_line() -> None:
    text = csv_text([{"a": "=x", "b": 0.1}, {"a": 'q"', "b": None}])
    assert text == 'a,b\n\'=x,0.1\n"q""",\n'
    assert list(csv.reader(io.StringIO(text)))[2] == ['q"', ""]
    assert csv_text([]) == ""
