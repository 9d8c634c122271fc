from __future__ import annotations

import torch

from mechbench.ops.adamw import flat_adamw_takes
from mechbench.ops.triton import unavailable


def test_only_float32_where_kernels_run_is_taken(device: str) -> None:
    parameter = torch.zeros(3, 2, device=device)
    assert flat_adamw_takes([parameter]) == (unavailable(parameter) is None)
    assert not flat_adamw_takes([parameter, parameter.double()])
    assert not flat_adamw_takes([parameter, torch.zeros(3, 2).T])
    assert not flat_adamw_takes([])
