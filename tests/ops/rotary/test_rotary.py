from __future__ import annotations

import pytest
import torch

from mechbench.ops import rotary, rotary_heads


def vectors(d: int = 8, L: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """The same q and the same k at every position."""
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, d, generator=generator, dtype=torch.float64)
    return q.expand(L, d), k.expand(L, d)


@pytest.mark.parametrize("base", [10_000.0, 100.0])
def test_scores_depend_on_the_distance_alone(base: float) -> None:
    q, k = vectors()
    scores = rotary(q, base) @ rotary(k, base).T
    for distance in range(-39, 40):
        same = scores.diagonal(distance)
        torch.testing.assert_close(same, same[:1].expand_as(same), rtol=0, atol=1e-12)
    assert scores[:, 0].std() > 0.1  # and do depend on it


def test_norms_stay_and_position_zero_is_left_alone() -> None:
    q, _ = vectors()
    turned = rotary(q)
    torch.testing.assert_close(turned.norm(dim=-1), q.norm(dim=-1))
    assert torch.equal(turned[0], q[0])


def test_pairs_turn_by_the_angles_of_the_source() -> None:
    q, _ = vectors(d=4)
    position = 7
    expected = torch.complex(q[0, :2], q[0, 2:])
    expected = expected * torch.polar(
        torch.ones(2, dtype=torch.float64),
        torch.tensor([position * 1.0, position * 10_000.0**-0.5], dtype=torch.float64),
    )
    torch.testing.assert_close(
        rotary(q)[position], torch.cat([expected.real, expected.imag]), rtol=0, atol=1e-12
    )


def test_keeps_the_type_and_leading_shape(device: str) -> None:
    x = torch.randn(2, 3, 5, 6, device=device, dtype=torch.bfloat16)
    assert rotary(x).dtype == torch.bfloat16
    assert rotary(x).shape == x.shape


def test_heads_are_split_and_values_left_alone() -> None:
    qkv = torch.randn(2, 5, 3, 4, 6, dtype=torch.float64)
    q, k, v = rotary_heads(qkv, 100.0)
    assert torch.equal(v, qkv[:, :, 2].transpose(1, 2))
    assert torch.equal(q, rotary(qkv[:, :, 0].transpose(1, 2), 100.0))
    assert torch.equal(k, rotary(qkv[:, :, 1].transpose(1, 2), 100.0))
