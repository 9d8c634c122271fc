from __future__ import annotations

import pytest

from bench.records import record
from mechbench.bench.record import Measured, Setting, quartiles


@pytest.mark.parametrize(("seqlen", "batch"), [(64, 4), (100, 2), (256, 1), (1000, 1)])
def test_batch_is_what_fits_the_tokens_and_at_least_one(seqlen: int, batch: int) -> None:
    assert Setting(8, 256, "cpu", "float32", 3).batch(seqlen) == batch


def test_figures_are_medians_and_quartiles() -> None:
    measured = Measured((1.0, 9.0, 2.0), (5.0,), None)
    assert (measured.forward, measured.both) == (2.0, 5.0)
    assert quartiles((1.0, 2.0, 3.0, 4.0, 5.0)) == (2.0, 4.0)
    assert quartiles((5.0,)) == (5.0, 5.0)


def test_medians_leave_out_what_was_not_measured() -> None:
    made = record()
    assert made.medians("eager-attention") == {1024: 20.0}
    assert made.medians("eager-attention", backward=False) == {1024: 5.0}
    assert [reading.outcome for reading in made.of("eager-attention").values()][1:3] == [
        "out of memory",
        "not run: out of memory at 2048",
    ]
