from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.tasks.prefix_trees import MOST, draw_shapes, slots, values


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def read(row: list[bool], start: int, slot: int, found: list[int]) -> int:
    """Fill in the slots of the expression at `start`, and return where it ends."""
    found[start] = slot
    end = start + 1
    if row[start]:
        for side in range(2):
            end = read(row, end, 2 * start + side, found)
    return end


@given(n=st.integers(0, 30), seed=st.integers(0, 2**40))
def test_shapes_are_expressions_and_slots_are_those_of_reading_them(n: int, seed: int) -> None:
    shapes = draw_shapes(5, n, generator(seed))
    assert (shapes.sum(1) == n).all()
    for row, slot in zip(shapes.tolist(), slots(shapes).tolist(), strict=True):
        found = [0] * len(row)
        assert read(row, 0, 2 * len(row), found) == len(row)
        assert found == slot


def test_all_trees_are_equally_likely() -> None:
    shapes = draw_shapes(28_000, 4, generator())
    counts = shapes.unique(dim=0, return_counts=True)[1]
    assert len(counts) == 14  # Catalan
    share = counts.double() / len(shapes)
    torch.testing.assert_close(share, torch.full((14,), 1 / 14).double(), rtol=0, atol=0.006)


def value(row: list[bool], content: list[int], modulus: int) -> int:
    stack: list[int] = []
    for operation, token in zip(reversed(row), reversed(content), strict=True):
        if operation:
            a, b = stack.pop(), stack.pop()
            token = (a + b, a - b, a * b)[token]
        stack.append(token % modulus)
    assert len(stack) == 1
    return stack[0]


@given(
    n=st.integers(0, 40), modulus=st.sampled_from([2, 3, 10, 23, MOST]), seed=st.integers(0, 2**40)
)
def test_values_are_those_of_a_stack_from_the_right(n: int, modulus: int, seed: int) -> None:
    shapes = draw_shapes(6, n, generator(seed))
    content = torch.randint(modulus, shapes.shape, generator=generator(seed))
    content = torch.where(shapes, content % 3, content)
    expected = [
        value(row, x, modulus) for row, x in zip(shapes.tolist(), content.tolist(), strict=True)
    ]
    assert values(shapes, content, modulus).tolist() == expected


def test_values_of_the_deepest_trees_on_either_side() -> None:
    left = [True] * 20 + [False] * 21
    right = [True, False] * 20 + [False]
    shapes = torch.tensor([left, right])
    content = torch.randint(23, shapes.shape, generator=generator())
    content = torch.where(shapes, content % 3, content)
    expected = [value(row, x, 23) for row, x in zip([left, right], content.tolist(), strict=True)]
    assert values(shapes, content, 23).tolist() == expected
