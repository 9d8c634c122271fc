from __future__ import annotations

import pytest
import torch

from mechbench.ops.fft_conv.kernels import steps
from ops.fft_conv.kernels.direct import assert_convolves

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("n", steps.LENGTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("missing", [0, 5000])
def test_equals_float64(n: int, dtype: torch.dtype, missing: int) -> None:
    assert_convolves(steps.steps_forward, steps.steps_backward, n, n - missing, n - missing, dtype)


@pytest.mark.parametrize("K", [1, 100, 16300])
def test_filters_of_any_length(K: int) -> None:
    assert_convolves(steps.steps_forward, steps.steps_backward, 16384, 16000, K, torch.float32)


@pytest.mark.parametrize("channels", [1, 2])
def test_chunks_of_channels_make_no_difference(
    channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "CHUNK_BYTES", channels * 4 * 32768 * 8)
    assert_convolves(steps.steps_forward, steps.steps_backward, 32768, 32768, 32768, torch.float32)
