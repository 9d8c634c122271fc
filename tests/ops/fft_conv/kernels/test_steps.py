from __future__ import annotations

from types import ModuleType

import pytest
import torch

from mechbench.ops.fft_conv.kernels import steps, whole
from ops.conftest import relative_error
from ops.fft_conv.kernels.direct import assert_convolves

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("n", steps.LENGTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("missing", [0, 5000])
def test_equals_float64(n: int, dtype: torch.dtype, missing: int) -> None:
    assert_convolves(steps, n, n - missing, n - missing, dtype)


@pytest.mark.parametrize("K", [1, 100, 16300])
def test_filters_of_any_length(K: int) -> None:
    assert_convolves(steps, 16384, 16000, K, torch.float32)


@pytest.mark.parametrize("channels", [1, 2])
def test_chunks_of_channels_make_no_difference(
    channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "CHUNK_BYTES", channels * 4 * 32768 * 8)
    assert_convolves(steps, 32768, 32768, 32768, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1e-25, 1e20])
@pytest.mark.parametrize(("kernels", "n"), [(steps, 16384), (whole, 8192)])
def test_rows_of_any_size(dtype: torch.dtype, size: float, kernels: ModuleType, n: int) -> None:
    v, dz = (torch.randn(2, 2, n, device="cuda").to(dtype) for _ in range(2))
    h = torch.randn(2, n, device="cuda")
    factor = torch.tensor([[[size]], [[1.0]]], device="cuda")
    (z, kept), (scaled, _) = (kernels.forward((v * f).to(dtype), h, n) for f in (1.0, factor))
    assert relative_error(scaled / factor.to(dtype), z) < 1e-2
    assert kernels.forward(0 * v, h, n)[0].count_nonzero() == 0
    wanted = kernels.backward(dz, v, h, n, kept)
    _, kept = kernels.forward(v, h * size, n)
    dv, dh = kernels.backward(dz, v, h * size, n, kept)
    assert relative_error(dv / size, wanted[0]) < 1e-2
    assert torch.equal(dh, wanted[1])


def test_what_is_not_a_number_stays_in_its_row() -> None:
    v = torch.randn(2, 2, 16384, device="cuda", dtype=torch.bfloat16)
    v[0, 1, 5000] = float("nan")
    v[1, 0, 1] = float("inf")
    z, _ = steps.forward(v, torch.randn(2, 16384, device="cuda"), 16384)
    assert z.isfinite().all(2).tolist() == [[True, False], [False, True]]
