from __future__ import annotations

import pytest
import torch

from mechbench.tasks.modulo import floats_for, reduce_

MODULI = (2, 3, 5, 7, 97, 641, 997, 1000, 1999, 2000)


@pytest.mark.parametrize("modulus", MODULI)
def test_numbers_of_32_bits_are_reduced_exactly(modulus: int, device: str) -> None:
    numbers = torch.arange(-(1 << 22), 1 << 22, 3, device=device)
    assert torch.equal(reduce_(numbers.float(), modulus).long(), numbers % modulus)


@pytest.mark.parametrize("modulus", MODULI)
def test_numbers_of_64_bits_are_reduced_exactly_around_multiples(modulus: int) -> None:
    quotients = torch.arange((1 << 50) // modulus - 99_999, (1 << 50) // modulus)
    for near in (-1, 0, 1, modulus // 2):
        for sign in (1, -1):
            numbers = sign * (quotients * modulus + near)
            assert torch.equal(reduce_(numbers.double(), modulus).long(), numbers % modulus)


def test_floats_hold_what_they_are_for() -> None:
    for largest in (1, (1 << 22) - 1, 1 << 22, (1 << 50) - 1):
        dtype, most = floats_for(largest)
        assert largest <= most
        assert torch.tensor([most + 1], dtype=dtype).long().item() == most + 1
    assert floats_for(1000)[0] == torch.float32
