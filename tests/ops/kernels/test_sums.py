from __future__ import annotations

import pytest
import torch

from mechbench.ops.kernels.sums import summed


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (129, 2, 7), (512, 256), (5, 3000), (20, 5000)])
def test_partial_sums_are_added_up(kernel_device: str, shape: tuple[int, ...]) -> None:
    part = torch.randn(shape)
    found = summed(part.to(kernel_device)).cpu()
    assert found.shape == shape[1:]
    torch.testing.assert_close(found.double(), part.double().sum(0), rtol=1e-5, atol=1e-4)
