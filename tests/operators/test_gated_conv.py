from __future__ import annotations

import pytest
import torch
from torch import Tensor

import mechbench
from mechbench.errors import ConfigError
from mechbench.operators.gated_conv import GatedConv, groups
from operators.gated_conv import features, tap_by_tap

D = 6


class Given(GatedConv):
    """Inner filters that a test gives."""

    given: Tensor

    def filters(self, seqlen: int) -> Tensor:
        return self.given


def build(n_groups: int = 3, n_taps: int = 5, skip: bool = True, short_filter: int = 3) -> Given:
    torch.manual_seed(0)
    op = Given(D, 64, n_groups=n_groups, short_filter=short_filter, skip=skip)
    op.register_buffer("given", torch.randn(n_groups, n_taps))
    return op.double()


def inputs(length: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, length, D, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("n_groups", [1, 2, 6])
@pytest.mark.parametrize(("n_taps", "skip", "short_filter"), [(1, True, 1), (5, False, 3)])
@pytest.mark.parametrize("length", [1, 4, 9])
def test_equals_the_sum_over_taps(
    n_groups: int, n_taps: int, skip: bool, short_filter: int, length: int
) -> None:
    op, u = build(n_groups, n_taps, skip, short_filter), inputs(length)
    with torch.no_grad():
        expected = tap_by_tap(op, u, op.given.tolist())
        torch.testing.assert_close(op(u), expected, rtol=1e-12, atol=1e-12)


def test_neighbouring_channels_share_a_filter() -> None:
    op = build(n_groups=3)
    taps = op.taps(9)
    assert taps.shape == (D, 5)
    assert torch.equal(taps[0::2], taps[1::2])
    assert torch.equal(taps[0::2], op.given)


@pytest.mark.parametrize(("n_taps", "skip"), [(3, True), (30, False)])
def test_materialized_matrix_is_causal_and_gives_the_fast_path(n_taps: int, skip: bool) -> None:
    op, u = build(n_taps=n_taps, skip=skip), inputs()
    H = mechbench.materialize(op, u)
    assert H.shape == (2, D, 9, 9)
    assert torch.equal(H.triu(1), torch.zeros_like(H))
    with torch.no_grad():
        v = features(op, u)[2].transpose(1, 2)
        y = op.out_proj((H @ v[..., None])[..., 0].transpose(1, 2))
        torch.testing.assert_close(op(u), y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("d_model", "n_groups", "size", "found"),
    [(64, 0, 16, 4), (64, 2, 16, 2), (8, 0, 16, 1), (50, 0, 16, 2), (7, 0, 1, 7), (72, 0, 16, 4)],
)
def test_default_groups_divide_the_channels(
    d_model: int, n_groups: int, size: int, found: int
) -> None:
    assert groups(d_model, n_groups, size) == found


@pytest.mark.parametrize("n_groups", [4, 12])
def test_groups_that_do_not_divide_the_channels_raise(n_groups: int) -> None:
    with pytest.raises(ConfigError, match=f"n_groups is {n_groups}: expected a divisor of 6"):
        GatedConv(D, 64, n_groups=n_groups, short_filter=3)
