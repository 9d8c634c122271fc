from __future__ import annotations

import pytest
import torch

from mechbench.errors import ConfigError
from mechbench.training.parallel import ALONE, Group, follows, join, launched


def test_alone_everything_stays_as_it_is() -> None:
    x = torch.arange(5)
    assert ALONE.share(x) is x
    ALONE.add_([x])
    assert x.tolist() == [0, 1, 2, 3, 4]
    assert ALONE.total([3, 4]) == [3, 4]
    assert (ALONE.any(True), ALONE.any(False)) == (True, False)
    assert join(1, "cpu") == (ALONE, "cpu")


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_shares_are_disjoint_and_make_the_batch(size: int) -> None:
    rows = torch.arange(5)
    shares = [Group(rank, size).share(rows).tolist() for rank in range(size)]
    assert sorted(row for share in shares for row in share) == rows.tolist()
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_process_that_was_not_launched_is_told_how(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert not launched()
    with pytest.raises(ConfigError, match="data_parallel is 2, but 1 were started"):
        join(2, "cpu")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert launched()
    assert follows()
    with pytest.raises(ConfigError, match="data_parallel is 2, but 3 were started"):
        join(2, "cpu")
