from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from checks.broken_operators import Base, subject
from mechbench.checks.growth import exponent, growth, saved_bytes, seconds

pytestmark = pytest.mark.usefixtures("clean_registry")


class Square(nn.Module):
    """Keep its input once, and its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, u: Tensor) -> Tensor:
        v = u * self.weight  # keeps u; the weight is a parameter
        return v.square() + v.square()  # keeps v twice: one storage


def test_bytes_count_each_storage_once_and_no_parameter() -> None:
    assert saved_bytes(Square(), torch.randn(2, 16, 8)) == 2 * (2 * 16 * 8 * 4)


@pytest.mark.parametrize(
    ("figures", "e"), [([3, 6, 12], 1), ([1, 4, 16], 2), ([7, 7, 7], 0), ([8, 4, 2], -1)]
)
def test_exponent_of_powers(figures: list[float], e: float) -> None:
    assert exponent([64, 128, 256], figures) == pytest.approx(e)


@pytest.mark.parametrize(
    ("name", "e"),
    [("hyena", 1), ("attention", 1), ("eager-attention", 2), ("mamba2", 1), ("retnet", 1)],
)
def test_memory_of_built_ins_grows_as_they_say(name: str, e: float) -> None:
    s, lengths = subject(name), [128, 256, 512]
    kept = [saved_bytes(s.build(L), s.inputs(1, L)) for L in lengths]
    assert exponent(lengths, kept) == pytest.approx(e, abs=0.25)
    assert kept[0] == saved_bytes(s.build(128), s.inputs(1, 128))  # counted, not measured


def test_time_is_of_forward_and_backward() -> None:
    s = subject(Base)
    assert 0 < seconds(s.module(), s.inputs(1, 32)) < 10
    memory, finding = growth(s)
    assert len(finding.value["seconds"]) == len(memory.value["mib"]) == 4
    assert finding.verdict == memory.verdict == ""
    assert memory.value["exponent"] == pytest.approx(1, abs=0.1)
