from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mechbench.record.seeds import derive

LABELS = st.lists(st.text("abcxyz-", max_size=5) | st.integers(-5, 5), max_size=4)


def test_golden_values() -> None:
    # Every published result depends on these: they never change.
    assert derive(0) == 3456079177858693020
    assert derive(0, "Recall", "test", 0) == 399865103572007470
    assert derive(2**63, "train", 10) == 7735463191082276042


@given(st.integers(), LABELS)
def test_seed_fits_63_bits_and_is_reproducible(seed: int, labels: list[str | int]) -> None:
    assert 0 <= derive(seed, *labels) < 2**63
    assert derive(seed, *labels) == derive(seed, *labels)


@given(st.integers(0, 9), LABELS, st.integers(0, 9), LABELS)
def test_different_seeds_or_labels_give_different_streams(
    seed: int, labels: list[str | int], other: int, others: list[str | int]
) -> None:
    same = (seed, [str(x) for x in labels]) == (other, [str(x) for x in others])
    assert (derive(seed, *labels) == derive(other, *others)) == same


def test_labels_do_not_run_together() -> None:
    assert len({derive(0, "ab", "c"), derive(0, "a", "bc"), derive(0, "abc"), derive(0)}) == 4
    assert derive(1, "1") != derive(11)
