from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch

from mechbench.tasks.hidden_hops import hidden_hops


@pytest.mark.parametrize("symbols", [3, 4])
def test_probabilities_are_those_of_all_hidden_symbols(symbols: int) -> None:
    table = hidden_hops(symbols, 4, 6)
    x, y, other = 0, 1, 2
    for hidden, hops in product(range(7), range(5)):
        counts = [0] * (symbols + 1)
        for before in product(range(symbols), repeat=hidden):
            row = [*before, y, x]
            if any(a == b for a, b in pairwise(row)):
                continue
            j = len(row) - 1
            for _ in range(hops):
                found = [n for n in range(1, j + 1) if row[n - 1] == row[j]] if j >= 0 else []
                j = max(found, default=-1)
            counts[row[j] if j >= 0 else symbols] += 1
        share = torch.tensor(counts).double() / sum(counts)
        expected = share[[x, y, other, symbols]]
        torch.testing.assert_close(table[hidden, hops], expected)
