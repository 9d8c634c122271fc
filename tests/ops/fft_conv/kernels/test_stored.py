from __future__ import annotations

import pytest
import torch

from mechbench.ops.fft_conv.kernels.stored import (
    Stored,
    empty_gradient,
    empty_pieces,
    is_halved,
    number_bytes,
)


@pytest.mark.parametrize(
    ("dtype", "stands"),
    [
        (torch.float32, torch.complex64),
        (torch.bfloat16, torch.int32),
        (torch.float16, torch.int32),
    ],
)
def test_half_types_stand_in_half_as_many_bytes(dtype: torch.dtype, stands: torch.dtype) -> None:
    halved = is_halved(dtype)
    stored = Stored.empty(2, 3, blocks=5, halved=halved, device=torch.device("cpu"))
    assert stored.numbers.shape == (2, 3)
    assert stored.numbers.dtype == stands
    assert stored.scales.dtype == torch.float32
    assert len(stored.scales) == (5 if halved else 0)
    assert stored.numbers.element_size() == number_bytes(dtype)


def test_taps_beyond_the_rows_have_no_gradient() -> None:
    device = torch.device("cpu")
    assert empty_gradient((2, 8), 8, device).shape == (2, 8)
    assert empty_gradient((2, 8), 7, device).count_nonzero() == 0


@pytest.mark.parametrize(("L", "width"), [(16, 16), (17, 32), (8194, 8208)])
def test_rows_begin_at_whole_vectors(L: int, width: int) -> None:
    rows = empty_pieces(torch.empty(2, 3, L, dtype=torch.bfloat16))
    assert rows.shape == (2, 3, width)
    assert rows.dtype == torch.bfloat16
