from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from mechbench.ops.counted import being_counted, is_counted


def test_within_and_only_there() -> None:
    assert not is_counted()
    with being_counted():
        with being_counted():
            assert is_counted()
        assert is_counted()
    assert not is_counted()


def test_an_error_leaves_nothing_behind() -> None:
    with pytest.raises(KeyError), being_counted():
        raise KeyError
    assert not is_counted()


def test_other_threads_are_not_counted() -> None:
    with being_counted(), ThreadPoolExecutor(1) as other:
        assert not other.submit(is_counted).result()
