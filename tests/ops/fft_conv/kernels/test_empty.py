from __future__ import annotations

import pytest
import torch

from mechbench.ops.fft_conv.kernels.empty import empty_gradient, empty_pieces


def test_taps_beyond_the_rows_have_no_gradient() -> None:
    device = torch.device("cpu")
    assert empty_gradient((2, 8), 8, device).shape == (2, 8)
    assert empty_gradient((2, 8), 7, device).count_nonzero() == 0


@pytest.mark.parametrize(("L", "width"), [(16, 16), (17, 32), (8194, 8208)])
def test_rows_begin_at_whole_vectors(L: int, width: int) -> None:
    rows = empty_pieces(torch.empty(2, 3, L, dtype=torch.bfloat16))
    assert rows.shape == (2, 3, width)
    assert rows.dtype == torch.bfloat16
