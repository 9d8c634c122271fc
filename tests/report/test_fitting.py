from __future__ import annotations

import pytest

from mechbench.report.fitting import inches, shortened, wrapped


def test_a_line_is_as_wide_as_its_letters() -> None:
    assert inches("W" * 20, 9) == pytest.approx(2 * inches("W" * 10, 9), rel=0.02)
    assert inches("i" * 20, 9) < inches("W" * 20, 9) / 2
    assert inches("$x$", 9) > inches("x", 9)  # no formula
    assert inches("算", 9) > 0


@pytest.mark.parametrize("text", ["W" * 100, "m-" * 60, "a long name of many words " * 5, "$_{"])
def test_no_line_is_wider_than_its_place(text: str) -> None:
    lines = wrapped(text, 2.0, 9, 36).splitlines()
    assert max(inches(line, 9) for line in lines) <= 2.0
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_what_fits_is_wrapped_by_its_characters() -> None:
    assert wrapped("one two three", 9.0, 9, 8) == "one two\n  three"


def test_different_names_stay_different() -> None:
    long = [f"{'start-' * 40}{letter}{'-end' * 40}" for letter in "ABC"]
    several = ["x" * 200 + a + "y" * 200 + b for a in "12" for b in "12"]
    names = ["short", *long, *several]
    texts = shortened(names, 100)
    assert set(texts) == set(names)
    assert len(set(texts.values())) == len(names)
    assert max(map(len, texts.values())) <= 100 + len(" #4")
    assert texts["short"] == "short"
    for letter, name in zip("ABC", long, strict=True):
        assert f"start-{letter}-end" in texts[name]
        assert texts[name].startswith("start-")
        assert texts[name].endswith("-end")
