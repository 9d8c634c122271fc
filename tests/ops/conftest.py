from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

from mechbench.ops.triton import has_triton
from mechbench.training.devices import wake_autograd

# Triton comes with the CUDA builds of torch.
collect_ignore_glob = [] if has_triton() else ["*test_kernels.py", "*kernels/test_*.py"]
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def pytest_runtest_setup() -> None:
    torch.manual_seed(0)  # a bound on rounding that holds once holds always


@pytest.fixture(
    params=[
        *(["cpu"] if _INTERPRETED else []),
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
            ],
        ),
    ]
)
def kernel_device(request: pytest.FixtureRequest) -> str:
    """Where Triton's kernels run: on CUDA; with TRITON_INTERPRET=1 in its interpreter too."""
    wake_autograd(request.param)
    return str(request.param)


def relative_error(got: Tensor, expected: Tensor) -> float:
    got, expected = got.detach().double().cpu(), expected.detach().double().cpu()
    return float((got - expected).norm() / expected.norm().clamp_min(1e-30))
