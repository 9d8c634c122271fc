from __future__ import annotations

import torch
from torch import nn

from mechbench.ops import split_linear


def test_slices_are_those_of_the_whole(device: str) -> None:
    layer = nn.Linear(5, 9, bias=False).to(device)
    x = torch.randn(2, 3, 5, device=device)
    slices = split_linear(x, layer, (4, 0, 5))
    assert [y.shape[-1] for y in slices] == [4, 0, 5]
    torch.testing.assert_close(torch.cat(slices, -1), layer(x), atol=1e-6, rtol=1e-5)


def test_autocast_gives_bfloat16(device: str) -> None:
    layer = nn.Linear(4, 3, bias=False).to(device)
    with torch.autocast(device, torch.bfloat16):
        slices = split_linear(torch.randn(2, 3, 4, device=device), layer, (1, 2))
    assert [y.dtype for y in slices] == [torch.bfloat16] * 2
