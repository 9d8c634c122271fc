from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from mechbench.ops.marks import COMPUTED_AGAIN, COUNTED, Mark

MARKS = pytest.mark.parametrize("mark", [COMPUTED_AGAIN, COUNTED], ids=["again", "counted"])


@MARKS
def test_within_and_only_there(mark: Mark) -> None:
    assert not mark
    with mark:
        with mark:
            assert mark
        assert mark
    assert not mark


@MARKS
def test_an_error_leaves_nothing_behind(mark: Mark) -> None:
    with pytest.raises(KeyError), mark:
        raise KeyError
    assert not mark


@MARKS
def test_other_threads_are_not_marked(mark: Mark) -> None:
    with mark, ThreadPoolExecutor(1) as other:
        assert not other.submit(bool, mark).result()


def test_marks_are_apart() -> None:
    with COUNTED:
        assert not COMPUTED_AGAIN
