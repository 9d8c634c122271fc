from __future__ import annotations

import pytest
import torch

from mechbench.ops.precision import autocast_dtype, product_precision

DTYPES = [torch.float64, torch.float32, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_autocast_it_is_the_inputs_own(device: str, dtype: torch.dtype) -> None:
    assert autocast_dtype(torch.empty(1, device=device, dtype=dtype)) == dtype


@pytest.mark.parametrize("wanted", [torch.bfloat16, torch.float16])
def test_with_autocast_it_is_what_a_product_would_be(device: str, wanted: torch.dtype) -> None:
    x = torch.ones(2, 2, device=device)
    with torch.autocast(device, dtype=wanted):
        assert autocast_dtype(x) == wanted == (x @ x).dtype
        with torch.autocast(device, enabled=False):
            assert autocast_dtype(x) == torch.float32
    assert autocast_dtype(x) == torch.float32


def test_autocast_of_another_device_does_not_count() -> None:
    x = torch.empty(1, device="meta")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert autocast_dtype(x) == torch.float32


def test_products_of_kernels_are_as_exact_as_products_around_them(device: str) -> None:
    x = torch.ones(2, 2, device=device)
    assert product_precision(x) == "tf32x3"
    assert product_precision(x.bfloat16()) == "tf32"
    with torch.autocast(device, dtype=torch.bfloat16):
        assert product_precision(x) == "tf32"
