"""Small finite groups by name: their elements, numbered, and their tables of products."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from mechbench.errors import ConfigError, nearest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Element = tuple[tuple[int, ...], ...]  # one part a factor: a permutation, or a number in Z_n

KNOWN = ("Z2", "Z60", "S3", "S4", "A4", "A4xZ5", "A5", "S5")
MOST = 1024  # elements, so that tables of products stay small
_FACTOR = re.compile(r"([ZSA])([1-9]\d{0,3})")


@dataclass(frozen=True)
class Group:
    """A group: Z_n adds, S_n and A_n compose permutations, products go factor by factor.

    Attributes:
        name: such as "S5" or "A4xZ5".
        elements: the identity first. Of permutations a b means: first b, then a.
    """

    name: str
    elements: tuple[Element, ...]

    @property
    def order(self) -> int:
        """How many elements there are."""
        return len(self.elements)

    def text(self, index: int) -> str:
        """Return an element as short text: a number, or where a permutation takes 1, 2, ..."""
        parts = self.elements[index]
        texts = [
            str(part[0]) if kind == "Z" else "".join(str(i + 1) for i in part)
            for (kind, _), part in zip(_factors(self.name), parts, strict=True)
        ]
        return ",".join(texts)

    def moved(self, index: int) -> int:
        """Return how many points the permutations of an element move; a number counts as none."""
        return sum(i != at for part in self.elements[index] for at, i in enumerate(part)) * (
            not self.name.startswith("Z")
        )


@lru_cache(maxsize=32)
def make_group(name: str) -> Group:
    """Return a group by its name.

    Raises:
        ConfigError: there is none of that name, or it has too many elements.
    """
    sizes = [n if kind == "Z" else math.factorial(n) // (1 + (kind == "A" and n > 1))
             for kind, n in _factors(name)]  # fmt: skip
    if math.prod(sizes) > MOST:
        raise ConfigError(
            f"group {name} has {math.prod(sizes)} elements: expected at most {MOST}; for example "
            f"{', '.join(KNOWN)}"
        )
    factors = [_elements(kind, n) for kind, n in _factors(name)]
    return Group(name, tuple(itertools.product(*factors)))


def _factors(name: str) -> list[tuple[str, int]]:
    found = [_FACTOR.fullmatch(part) for part in name.split("x")]
    if not all(found) or any(match and match[1] != "Z" and int(match[2]) > 9 for match in found):
        raise ConfigError(f"unknown group {name!r}: {nearest(name, KNOWN)}")
    return [(match[1], int(match[2])) for match in found if match]


def _elements(kind: str, n: int) -> Sequence[tuple[int, ...]]:
    if kind == "Z":
        return [(i,) for i in range(n)]
    permutations = itertools.permutations(range(n))  # in lexicographic order, the identity first
    return [p for p in permutations if kind == "S" or _even(p)]


def _even(permutation: Sequence[int]) -> bool:
    pairs = itertools.combinations(permutation, 2)
    return sum(a > b for a, b in pairs) % 2 == 0


@lru_cache(maxsize=32)
def products(name: str, device: torch.device) -> Tensor:
    """Return (n n,) int64: the number of a b at a n + b."""
    import torch

    group = make_group(name)
    n, table = group.order, torch.zeros(1, 1, dtype=torch.int64)
    for kind, size in _factors(name):
        part = _table(kind, size)
        rows = (table[:, None, :, None] * len(part) + part[None, :, None, :]).flatten(2)
        table = rows.flatten(0, 1)
    assert table.shape == (n, n)
    return table.flatten().to(device)


def _table(kind: str, size: int) -> Tensor:
    import torch

    elements = torch.tensor(_elements(kind, size))
    if kind == "Z":
        return (elements + elements.T) % size
    composed = elements[:, elements]  # (n, n, points): first the second, then the first
    weights = size ** torch.arange(size)
    codes = (elements * weights).sum(1)
    order = codes.argsort()
    return order[torch.searchsorted(codes[order], (composed * weights).sum(2))]


@lru_cache(maxsize=32)
def quotients(name: str, device: torch.device) -> Tensor:
    """Return (n n,) int64: the number of a^-1 b at a n + b."""
    import torch

    n, table = make_group(name).order, products(name, device)
    left = torch.arange(n, device=device)[:, None].expand(n, n)
    right = torch.arange(n, device=device).expand(n, n)
    # a x = b: where a's row of products holds b.
    out = torch.empty(n * n, dtype=torch.int64, device=device)
    return out.scatter_(0, (left * n + table.view(n, n)).flatten(), right.flatten())


def running_products(moves: Tensor, name: str) -> Tensor:
    """Return (B, L): the products of the elements (B, L) up to each position, by doubling."""
    n, table = make_group(name).order, products(name, moves.device)
    done, reach = moves.clone(), 1
    while reach < moves.shape[1]:
        done[:, reach:] = table[done[:, :-reach] * n + done[:, reach:]]
        reach *= 2
    return done
