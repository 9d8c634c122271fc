from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.tasks.base import IGNORE, UNKNOWN
from mechbench.tasks.cycle_navigation import CycleNavigation
from mechbench.tasks.even_pairs import EvenPairs
from mechbench.tasks.marked import Marked, of_the_last
from mechbench.tasks.parity import Parity

KINDS: list[type[Marked]] = [Parity, EvenPairs, CycleNavigation]


@pytest.mark.parametrize("kind", KINDS)
@given(seqlen=st.integers(2, 40), least=st.integers(0, 40), seed=st.integers(0, 2**40))
def test_symbols_mark_and_padding(kind: type[Marked], seqlen: int, least: int, seed: int) -> None:
    least = 0 if least < kind.shortest else min(least, seqlen)
    task = kind(vocab_size=9, seqlen=seqlen, min_seqlen=least)
    batch = task.sample(8, torch.Generator().manual_seed(seed))
    for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        assert len(inputs) == seqlen + 1
        end = inputs.index(task.n_symbols)
        assert (least or seqlen) <= end <= seqlen
        assert all(token < task.n_symbols for token in inputs[:end])
        assert inputs[end + 1 :] == [0] * (seqlen - end)
        assert [t for t, target in enumerate(targets) if target != IGNORE] == [end]


@pytest.mark.parametrize("kind", KINDS)
def test_symbols_and_lengths_are_uniform(kind: type[Marked]) -> None:
    task = kind(vocab_size=9, seqlen=9, min_seqlen=6)
    inputs = task.sample(8000, torch.Generator().manual_seed(0)).inputs
    ends = (inputs == task.n_symbols).int().argmax(1)
    share = torch.bincount(ends, minlength=10)[6:] / 8000
    torch.testing.assert_close(share, torch.full((4,), 0.25), rtol=0, atol=0.02)
    symbols = torch.bincount(inputs[:, :6].flatten()) / (6 * 8000)
    n = task.n_symbols
    torch.testing.assert_close(symbols, torch.full((n,), 1 / n), rtol=0, atol=0.01)


def test_a_window_tells_nothing_and_short_lengths_need_no_curriculum() -> None:
    task = Parity(3, 40)
    inputs = task.sample(4, torch.Generator().manual_seed(0)).inputs
    assert (task.oracle(inputs[:, 1:]) == UNKNOWN).all()
    assert task.easiest_seqlen == 16
    assert Parity(3, 40, 3).easiest_seqlen == 40


@given(values=st.lists(st.integers(-3, 3), min_size=1, max_size=20), count=st.integers(1, 25))
def test_sums_of_the_last_values(values: list[int], count: int) -> None:
    expected = [sum(values[max(0, t + 1 - count) : t + 1]) for t in range(len(values))]
    assert of_the_last(torch.tensor([values]), count)[0].tolist() == expected
