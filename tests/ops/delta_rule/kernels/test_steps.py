from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from mechbench.ops.delta_rule.kernels.steps import (
    last_rows,
    put_last,
    put_steps,
    step_rows,
    strides_of,
)

SIZE, WIDTH = 16, 5  # steps of a chunk, columns


@triton.jit
def _copy_kernel(
    every, last, every_out, last_out, steps, token, step, last_token, W,
    N: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    t = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    x = step_rows(every, t, steps, token, step, W, N, BLOCK)
    put_steps(every_out, t, steps, token, step, W, 2.0 * x, N, BLOCK)
    x = last_rows(last, t, steps, last_token, W, N, BLOCK)
    put_last(last_out, t, steps, last_token, W, x + 1.0, N, BLOCK)


@pytest.mark.parametrize(("L", "n"), [(1, 1), (37, 1), (9, 2), (11, 3)])
def test_steps_and_what_belongs_to_the_last_are_where_they_should_be(
    kernel_device: str, L: int, n: int
) -> None:
    generator = torch.Generator().manual_seed(L)
    every = torch.randn(1, 1, L, n, WIDTH, generator=generator).to(kernel_device)
    last = torch.randn(1, 1, L, WIDTH, generator=generator).to(kernel_device)
    every_out, last_out = torch.full_like(every, 7.0), torch.full_like(last, 7.0)
    token, step = strides_of(every)[2:]
    _copy_kernel[(triton.cdiv(L * n, SIZE),)](
        every, last, every_out, last_out, L * n, token, step, strides_of(last)[2], WIDTH,
        N=n, SIZE=SIZE, BLOCK=8,
    )  # fmt: skip
    assert torch.equal(every_out, 2 * every)
    assert torch.equal(last_out, last + 1)


def test_strides_end_before_the_columns() -> None:
    q, k, g = torch.empty(2, 3, 4, 5), torch.empty(2, 3, 4, 6, 5), torch.empty(2, 3, 24)
    assert strides_of(q, k, g) == [60, 20, 5, 360, 120, 30, 5, 72, 24, 1]
