from __future__ import annotations

import pytest
import torch

from mechbench.ops.fft_conv.kernels import whole
from ops.fft_conv.kernels.direct import assert_convolves

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("n", whole.LENGTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("missing", [0, 1, 700])
def test_equals_float64(n: int, dtype: torch.dtype, missing: int) -> None:
    assert_convolves(whole, n, n - missing, n - missing, dtype)


@pytest.mark.parametrize("K", [1, 100, 2100])
def test_filters_of_any_length(K: int) -> None:
    assert_convolves(whole, 2048, 2000, K, torch.float32)


@pytest.mark.parametrize("channels", [1, 2])
def test_chunks_of_channels_make_no_difference(
    channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole, "CHUNK_BYTES", channels * 4 * 2048 * 8)
    assert_convolves(whole, 2048, 2048, 2048, torch.float32)
