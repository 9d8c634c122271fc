from __future__ import annotations

import pytest
import torch

from mechbench.errors import ConfigError
from mechbench.tasks.lengths import check_min_seqlen, draw_lengths


def test_lengths_are_uniform_between_both_ends(device: str) -> None:
    lengths = draw_lengths(20_000, 3, 7, torch.Generator(device).manual_seed(0))
    assert (lengths.shape, lengths.dtype, lengths.device.type) == ((20_000, 1), torch.int64, device)
    share = torch.bincount(lengths[:, 0]).cpu() / 20_000
    torch.testing.assert_close(share, torch.tensor([0, 0, 0, *[0.2] * 5]), rtol=0, atol=0.015)


def test_without_a_least_length_all_are_whole() -> None:
    assert draw_lengths(4, 0, 9, torch.Generator()).flatten().tolist() == [9] * 4


@pytest.mark.parametrize(("given", "nearest"), [(1, 3), (2, 3), (41, 40), (-1, 3)])
def test_a_range_that_cannot_be_names_the_nearest(given: int, nearest: int) -> None:
    with pytest.raises(ConfigError, match=rf"min_seqlen is {given}: expected 0, .*is {nearest}$"):
        check_min_seqlen(given, 40, 3)


def test_ranges_that_can_be() -> None:
    for given in (0, 3, 40):
        check_min_seqlen(given, 40, 3)
