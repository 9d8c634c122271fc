from __future__ import annotations

import torch

from mechbench.ops import with_earlier


def test_tokens_stand_beside_those_before_them(device: str) -> None:
    u = torch.randn(2, 5, 3, device=device)
    out = with_earlier(u)
    assert torch.equal(out[..., :3], u)
    assert torch.equal(out[:, 1:, 3:], u[:, :-1])
    assert not out[:, 0, 3:].any()


def test_autocast_gives_bfloat16(device: str) -> None:
    with torch.autocast(device, torch.bfloat16):
        assert with_earlier(torch.randn(1, 2, 3, device=device)).dtype == torch.bfloat16
