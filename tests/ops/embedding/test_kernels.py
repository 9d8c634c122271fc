from __future__ import annotations

import pytest
import torch

from mechbench.ops.embedding import _MOST, kernels
from ops.conftest import relative_error


@pytest.mark.parametrize(
    ("shape", "V", "D"),
    [((1,), 1, 1), ((3, 7), 5, 3), ((2, 600), 30, 64), ((700,), _MOST, 100), ((0,), 4, 8)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_sums_of_the_rows_of_each_token(
    kernel_device: str, shape: tuple[int, ...], V: int, D: int, dtype: torch.dtype
) -> None:
    tokens = torch.randint(V, shape, device=kernel_device)
    dy = torch.randn(*shape, D, device=kernel_device).to(dtype)
    got = kernels.row_sums(tokens, dy, V)
    expected = torch.zeros(V, D, dtype=torch.float64, device=kernel_device)
    expected.index_add_(0, tokens.flatten(), dy.double().flatten(0, -2))
    assert got.dtype == torch.float32
    assert relative_error(got, expected) < 1e-5


def test_more_tiles_than_programs(kernel_device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = torch.randint(9, (1000,), device=kernel_device)
    dy = torch.randn(1000, 20, device=kernel_device)
    once = kernels.row_sums(tokens, dy, 9)
    monkeypatch.setattr(kernels, "_PROGRAMS", 2)
    assert relative_error(kernels.row_sums(tokens, dy, 9), once) < 1e-5
