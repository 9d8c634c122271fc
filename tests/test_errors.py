from __future__ import annotations

import pytest

from mechbench import errors
from mechbench.errors import MechbenchError, nearest


def test_every_error_is_caught_as_one_family() -> None:
    found = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]
    assert len(found) >= 6
    assert all(issubclass(e, MechbenchError) for e in found)
    assert issubclass(errors.SeqlenError, errors.ConfigError)


@pytest.mark.parametrize(
    ("name", "choices", "text"),
    [
        ("hyna", ["attention", "hyena"], "did you mean 'hyena'? choose from: attention, hyena"),
        ("zzz", ["hyena", "attention"], "choose from: attention, hyena"),
        ("x", [], "choose from: (none)"),
    ],
)
def test_nearest_suggests_and_lists_sorted(name: str, choices: list[str], text: str) -> None:
    assert nearest(name, choices) == text


def test_text_of_an_error_is_one_line_whatever_it_names() -> None:
    assert str(errors.ResultError("a\nb does not exist")) == "a b does not exist"
    assert str(MechbenchError("as it  is")) == "as it  is"
