from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from mechbench.ops.again import computed_again, is_again


def test_within_and_only_there() -> None:
    assert not is_again()
    with computed_again():
        with computed_again():
            assert is_again()
        assert is_again()
    assert not is_again()


def test_an_error_leaves_nothing_behind() -> None:
    with pytest.raises(KeyError), computed_again():
        raise KeyError
    assert not is_again()


def test_other_threads_compute_for_the_first_time() -> None:
    with computed_again(), ThreadPoolExecutor(1) as other:
        assert not other.submit(is_again).result()
