from __future__ import annotations

import random

import pytest
import torch

from mechbench.tasks.expressions import MINUS, PLUS, TIMES, evaluate

SIGNS = {PLUS: "+", MINUS: "-", TIMES: "*"}
Node = tuple[int, int, int]  # value, operator, depth


def written(nodes: list[Node]) -> str:
    """Return the expression, with an empty bracket never left open."""
    text, opened = "", False
    for i, (value, operator, depth) in enumerate(nodes):
        following = nodes[i + 1][2] if i + 1 < len(nodes) else 0
        if i and not opened:
            text += SIGNS[operator]
        opened = following > depth
        text += "(" if opened else str(value) + ")" * (depth - following)
    return text


def drawn(rng: random.Random, n: int, levels: int, modulus: int) -> list[Node]:
    depths = [0]
    for _ in range(n - 1):
        depths.append(rng.randint(0, min(levels, depths[-1] + 1)))
    nodes = []
    for i, depth in enumerate(depths):
        bracket = i + 1 < n and depths[i + 1] > depth
        first = i == 0 or depth > depths[i - 1]
        operator = PLUS if first else rng.choice((PLUS, MINUS, TIMES))
        nodes.append((0 if bracket else rng.randrange(modulus), operator, depth))
    return nodes


@pytest.mark.parametrize("modulus", [2, 5, 10, 97, 1000, 2000])
@pytest.mark.parametrize(("n", "levels"), [(1, 0), (2, 1), (20, 0), (20, 2), (33, 6), (60, 20)])
def test_values_are_those_that_python_finds(modulus: int, n: int, levels: int, device: str) -> None:
    rng = random.Random(n)
    rows = [drawn(rng, n, levels, modulus) for _ in range(60)]
    values, operators, depth = torch.tensor(rows, device=device).unbind(2)
    found = evaluate(values, operators, depth, levels, modulus)
    assert (found.shape, found.device.type) == ((60, 1), device)
    assert found[:, 0].tolist() == [eval(written(row)) % modulus for row in rows]


def test_what_lies_deeper_is_no_part() -> None:
    nodes = [(9, TIMES, 3), (3, PLUS, 0), (7, MINUS, 3), (4, TIMES, 0), (1, PLUS, 3)]
    values, operators, depth = torch.tensor([nodes]).unbind(2)
    assert evaluate(values, operators, depth, 2, 11).tolist() == [[1]]  # 3 x 4


@pytest.mark.parametrize("modulus", [997, 1999])
@pytest.mark.parametrize("n", [2000, 9000])
def test_numbers_stay_exact_where_they_are_largest(modulus: int, n: int) -> None:
    """In rows of one product, of one sum, and between; of the longer ones in doubles."""
    values = torch.randint(modulus - 9, modulus, (3, n), generator=torch.Generator().manual_seed(n))
    operators = torch.full((3, n), TIMES)
    operators[:, 0] = operators[1] = PLUS
    operators[2, ::2] = MINUS
    found = evaluate(values, operators, torch.zeros_like(values), 0, modulus)
    for answer, row, signs in zip(found[:, 0], values.tolist(), operators.tolist(), strict=True):
        terms: list[int] = []
        for value, sign in zip(row, signs, strict=True):
            if sign == TIMES:
                terms[-1] = terms[-1] * value % modulus
            else:
                terms.append(value if sign == PLUS else -value)
        assert answer == sum(terms) % modulus
