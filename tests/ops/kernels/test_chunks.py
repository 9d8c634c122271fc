from __future__ import annotations

import pytest
import torch

from mechbench.ops.kernels import chunks
from mechbench.ops.kernels.chunks import block, chunk_of, strides


def test_tiles_are_powers_of_two_that_a_product_takes() -> None:
    assert [block(n) for n in (1, 16, 17, 100)] == [16, 16, 32, 128]


def test_strides_are_those_of_batch_head_and_token() -> None:
    x = torch.empty(2, 5, 3, 4).transpose(1, 2)
    assert strides(x, None, x[..., 0]) == [60, 4, 12, 0, 0, 0, 60, 4, 12]


def test_chunks_are_shorter_where_states_are_wide_or_memory_is_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    narrow, wide = torch.empty(1, 1, 5, 64), torch.empty(1, 1, 5, 65)
    assert [chunk_of(narrow, narrow), chunk_of(wide, narrow), chunk_of(narrow, wide)] == [
        64,
        32,
        32,
    ]
    monkeypatch.setattr(chunks, "roomy", lambda device: False)
    assert chunk_of(narrow, narrow) == 32
