from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from checks.broken_operators import Base, FixedConv, subject
from mechbench.checks.properties import (
    context,
    data_control,
    effective_context,
    growth_exponent,
    parameter_scaling,
    properties,
    reach,
)

pytestmark = pytest.mark.usefixtures("clean_registry")


def test_fixed_convolution_has_no_data_control_and_linear_parameters() -> None:
    control, parameters, far = properties(subject(FixedConv))
    assert control.verdict == "no"
    assert control.value["change"] < 1e-12
    assert "Jacobian" in control.value["how"]
    assert parameters.verdict == "no"
    assert parameters.value["exponent"] == pytest.approx(1)
    assert parameters.value["parameters"] == [8 * 32 * n for n in (1, 2, 4, 8)]
    assert far.verdict == "yes"


@pytest.mark.parametrize("name", ["attention", "hyena", "gated-deltanet"])
def test_data_control_and_sublinear_parameters_of_built_ins(name: str) -> None:
    control = data_control(subject(name))
    assert control.verdict == "yes"
    assert control.value["change"] > 1e-3
    assert control.value["how"] == "mixing_matrix"
    parameters = parameter_scaling(subject(name))
    assert (parameters.verdict, parameters.value["exponent"]) == ("yes", 0)


def test_retention_moves_with_its_queries_but_its_decay_does_not() -> None:
    """Two inputs alike give the same map: the figure is of the input, not of chance."""
    s = subject("retnet")
    module, u = s.module().double(), s.inputs(1, 8, dtype=torch.float64)
    assert torch.equal(module.mixing_matrix(u), module.mixing_matrix(u.clone()))
    assert data_control(s).value["change"] > 0.1


def test_gate_is_found_through_the_jacobian() -> None:
    class Gated(Base):
        def forward(self, u: Tensor) -> Tensor:
            return u.sigmoid() * super().forward(u)

    finding = data_control(subject(Gated))
    assert finding.verdict == "yes"
    assert "Jacobian" in finding.value["how"]


@pytest.mark.parametrize(
    ("counts", "exponent"),
    [
        ([100, 100, 100, 100], 0),
        ([1010, 1020, 1040, 1080], 1),  # 1000 + L
        ([5, 6, 7, 8], 0),  # logarithmic
        ([100, 400, 1600, 6400], 2),
        ([10**6 + n**2 for n in (1, 2, 4, 8)], 2),
        ([100, 90, 80, 70], 0),
    ],
)
def test_exponent_is_free_of_what_does_not_grow(counts: list[int], exponent: float) -> None:
    assert growth_exponent(counts) == pytest.approx(exponent, abs=1e-9)


def test_all_growth_in_the_last_doubling_is_no_saving() -> None:
    assert growth_exponent([10, 10, 10, 20]) > 1


class Window(nn.Module):
    """The mean of the last four inputs."""

    def __init__(self, d_model: int, max_seqlen: int) -> None:
        super().__init__()

    def forward(self, u: Tensor) -> Tensor:
        padded = torch.cat([u[:, :3] * 0, u], 1)
        return sum(padded[:, i : i + u.shape[1]] for i in range(4)) / 4


def test_reach_of_a_window_is_its_width() -> None:
    s = subject(Window)
    norms = reach(s.module(), s.inputs(3, 32))
    assert norms.shape == (32,)
    torch.testing.assert_close(norms[:4], norms[:1].expand(4))
    assert not norms[4:].any()
    finding = context(s)
    assert finding.verdict == "no"
    assert finding.value == {
        "far_share": 0,
        "effective_context_tokens": 4,
        "farthest": 3,
        "seqlen": 32,
    }
    assert "none beyond 4" in finding.text


def test_attention_reaches_all_and_sliding_attention_its_window() -> None:
    assert context(subject("attention")).verdict == "yes"
    finding = context(subject("sliding-attention", window=8))
    assert (finding.verdict, finding.value["farthest"], finding.value["far_share"]) == ("no", 7, 0)


def test_effective_context_of_equal_and_single_weights() -> None:
    assert effective_context(torch.ones(100)) == 95
    assert effective_context(torch.tensor([0.0, 0.0, 1.0, 0.0])) == 3
    assert effective_context(torch.tensor([1.0, 0.0])) == 1
