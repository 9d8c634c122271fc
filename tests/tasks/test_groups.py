from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.errors import ConfigError
from mechbench.tasks.groups import KNOWN, make_group, products, quotients, running_products

ORDERS = {"Z2": 2, "Z60": 60, "S3": 6, "S4": 24, "A4": 12, "A4xZ5": 60, "A5": 60, "S5": 120}
CPU = torch.device("cpu")


def table(name: str) -> torch.Tensor:
    n = make_group(name).order
    return products(name, CPU).view(n, n)


@pytest.mark.parametrize("name", KNOWN)
def test_tables_are_those_of_groups(name: str) -> None:
    n, of = make_group(name).order, table(name)
    assert n == ORDERS[name]
    numbers = torch.arange(n)
    assert torch.equal(of[0], numbers)  # the identity is the first
    assert torch.equal(of[:, 0], numbers)
    assert torch.equal(of.sort(0).values, numbers[:, None].expand(n, n))  # and every row, column
    assert torch.equal(of.sort(1).values, numbers.expand(n, n))
    some = torch.randint(n, (3, 2000), generator=torch.Generator().manual_seed(0))
    a, b, c = some
    assert torch.equal(of[of[a, b], c], of[a, of[b, c]])
    assert torch.equal(of[a, quotients(name, CPU)[a * n + b]], b)
    assert torch.equal(of, of.T) == name.startswith("Z")


def test_products_of_permutations_are_composed_right_to_left() -> None:
    group, of = make_group("S3"), table("S3")
    number = {group.text(i): i for i in range(6)}
    # 213 swaps the first two points, 132 the last two: first 132, then 213, takes 1, 2, 3 to 2 3 1.
    assert group.text(int(of[number["213"], number["132"]])) == "231"
    assert [group.moved(number[text]) for text in ("123", "213", "231")] == [0, 2, 3]


def test_products_of_groups_go_part_by_part() -> None:
    group, of = make_group("A4xZ5"), table("A4xZ5")
    number = {group.text(i): i for i in range(60)}
    assert group.text(int(of[number["2143,3"], number["3412,4"]])) == "4321,2"
    assert of[number["1234,1"], number["1234,4"]] == 0


@given(seed=st.integers(0, 2**40), length=st.integers(1, 70), name=st.sampled_from(KNOWN))
def test_running_products_are_those_of_a_loop(seed: int, length: int, name: str) -> None:
    n, of = make_group(name).order, table(name)
    moves = torch.randint(n, (3, length), generator=torch.Generator().manual_seed(seed))
    found = running_products(moves, name).tolist()
    for row, products_ in zip(moves.tolist(), found, strict=True):
        so_far, expected = 0, []
        for move in row:
            so_far = int(of[so_far, move])
            expected.append(so_far)
        assert products_ == expected


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("S9x", "unknown group 'S9x'"),
        ("s5", "unknown group 's5': did you mean 'S5'"),
        ("Z0", "unknown group 'Z0'"),
        ("", "unknown group ''"),
        ("S12", "unknown group 'S12'"),
        ("S7", "group S7 has 5040 elements: expected at most 1024"),
        ("S5xS5", "group S5xS5 has 14400 elements"),
    ],
)
def test_what_is_no_group_is_one_line(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make_group(name)
