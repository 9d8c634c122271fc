from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.tasks.automata import Automata, Ranges, draw_automata, n_lots, walk


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(length=st.integers(1, 40), states=st.integers(1, 6), seed=st.integers(0, 2**40))
def test_a_walk_takes_map_after_map(length: int, states: int, seed: int) -> None:
    maps = torch.randint(states, (3, length, states), generator=generator(seed))
    for row, found in zip(maps.tolist(), walk(maps).tolist(), strict=True):
        state, expected = 0, []
        for step in row:
            expected.append(state)
            state = step[state]
        assert found == expected


def test_lots_decide_the_edges_and_lead_back_to_the_first_state() -> None:
    follows = torch.tensor([[[1, 2], [2, 0], [0, 1]]])
    automata = Automata(follows, follows, torch.tensor([[[2], [1], [2]]]))
    assert (n_lots(2), n_lots(3), n_lots(4)) == (2, 6, 12)
    states, edges = automata.walk(torch.tensor([[0, 1, 1, 1, 2, 1, 0]]), 2)
    assert states.tolist() == [[0, 1, 2, 1, 2, 0, 2]]
    assert edges.tolist()[0][:4] == [0, 0, 1, 0]  # state 1 has one edge only
    assert edges.tolist()[0][5:] == [1, 0]


@given(
    least=st.integers(4, 6), more=st.integers(0, 8), edges=st.integers(1, 3),
    seed=st.integers(0, 2**40),
)  # fmt: skip
def test_edges_have_distinct_ends_and_symbols(least: int, more: int, edges: int, seed: int) -> None:
    ranges = Ranges((least, least + more), (3, 3 + more), (1, edges))
    made = draw_automata(8, 20, ranges, generator(seed))
    for follows, symbols, numbers in zip(
        made.follows.tolist(), made.symbols.tolist(), made.n_edges.flatten(1).tolist(), strict=True
    ):
        n_states = 1 + max(follows[state][0] for state in range(least))
        assert n_states <= least + more
        used = set()
        for state in range(least):
            n = numbers[state]
            assert 1 <= n <= edges
            ends, letters = follows[state][:n], symbols[state][:n]
            assert len({*ends, state}) == n + 1
            assert len({*letters}) == n
            assert all(0 <= letter < 20 for letter in letters)
            used |= {*letters}
        assert len(used) <= 3 + more


def test_numbers_ends_and_symbols_are_uniform() -> None:
    made = draw_automata(20_000, 6, Ranges((4, 5), (4, 6), (1, 3)), generator())
    share = torch.bincount(made.n_edges[:, 0, 0], minlength=4) / 20_000
    torch.testing.assert_close(share, torch.tensor([0, 1, 1, 1]) / 3, rtol=0, atol=0.012)
    ends = torch.bincount(made.follows[:, 1, 2], minlength=5) / 20_000
    # State 4 exists in half of the automata: then four others to choose from, else three.
    expected = torch.tensor([7, 0, 7, 7, 3]) / 24
    torch.testing.assert_close(ends, expected, rtol=0, atol=0.012)
    letters = torch.bincount(made.symbols[:, 2, 0], minlength=6) / 20_000
    torch.testing.assert_close(letters, torch.full((6,), 1 / 6), rtol=0, atol=0.012)
    same = (made.symbols[:, 2, 0] == made.symbols[:, 1, 0]).double().mean().item()
    assert same == pytest.approx((1 / 4 + 1 / 5 + 1 / 6) / 3, abs=0.012)  # one alphabet for both
