from __future__ import annotations

import pytest
import torch

from ops.conftest import relative_error


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (1500, 64), (700, 300)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_of_columns(kernel_device: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    from mechbench.ops.linear.kernels import column_sum

    x = torch.randn(shape, device=kernel_device).to(dtype)
    assert relative_error(column_sum(x), x.double().sum(0)) < 1e-5
