from __future__ import annotations

import torch

from mechbench.ops.kernels.chunks import block, strides


def test_tiles_are_powers_of_two_that_a_product_takes() -> None:
    assert [block(n) for n in (1, 16, 17, 100)] == [16, 16, 32, 128]


def test_strides_are_those_of_batch_head_and_token() -> None:
    x = torch.empty(2, 5, 3, 4).transpose(1, 2)
    assert strides(x, None, x[..., 0]) == [60, 4, 12, 0, 0, 0, 60, 4, 12]
