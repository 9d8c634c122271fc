from __future__ import annotations

import pytest
import torch

from mechbench.ops import delta_rule, rotary, used
from mechbench.ops.used import exchange, forget_ops_used, noted, ops_used


@pytest.fixture(autouse=True)
def _own_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(used, "_USED", {})


def test_what_ran_is_told_by_op_and_device() -> None:
    x, meta = torch.zeros(2), torch.zeros(2, device="meta")
    assert noted("one", x, True)
    assert not noted("one", x, False)
    assert not noted("another", x, False)
    assert noted("third", meta, True)
    assert ops_used("cpu") == {"another": "torch", "one": "torch, triton"}
    assert ops_used("meta") == {"third": "triton"}
    forget_ops_used()
    assert ops_used("cpu") == {}


def test_records_are_exchanged() -> None:
    x = torch.zeros(2)
    noted("one", x, True)
    first = exchange({})
    noted("other", x, False)
    assert ops_used("cpu") == {"other": "torch"}
    exchange(first)
    assert ops_used("cpu") == {"one": "triton"}


def test_ops_tell() -> None:
    x = torch.randn(1, 2, 8, 4, dtype=torch.float64)
    delta_rule(x, x / x.norm(dim=-1, keepdim=True), x, x[..., 0] * 0, x[..., 0].sigmoid())
    rotary(x, 10_000.0)
    assert ops_used("cpu") == {"delta_rule": "torch", "rotary": "torch"}
