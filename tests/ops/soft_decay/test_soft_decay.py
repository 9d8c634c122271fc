from __future__ import annotations

import pytest
import torch

from mechbench.ops import soft_decay


@pytest.mark.parametrize("K", [0, 3])
def test_is_the_formula_of_every_head(K: int) -> None:
    more = (K,) if K else ()
    logits = torch.randn(2, 4, 5, *more, dtype=torch.float64)
    bias, log_rate = torch.randn(4, *more).double(), torch.randn(4).double()
    steps, falls = soft_decay(logits, bias, log_rate)
    for h in range(4):
        step = torch.log1p(torch.exp(logits[:, h] + bias[h]))
        torch.testing.assert_close(steps[:, h], step)
        torch.testing.assert_close(falls[:, h], -log_rate[h].exp() * step)


def test_half_types_give_float32() -> None:
    steps, falls = soft_decay(torch.zeros(1, 2, 3).bfloat16(), torch.zeros(2), torch.zeros(2))
    assert steps.dtype == falls.dtype == torch.float32
    torch.testing.assert_close(steps, torch.full((1, 2, 3), 2.0).log())
