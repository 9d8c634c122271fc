"""Holds an operator to the error that its class states."""

from __future__ import annotations

from torch import Tensor, nn

from mechbench.operators.fidelity import Fidelity


def stated(operator: nn.Module, variant: str = "") -> Fidelity:
    """Return what the class of `operator` says of that variant."""
    (found,) = (row for row in operator.fidelity if row.variant == variant)  # type: ignore[union-attr]
    assert isinstance(found, Fidelity)
    return found


def assert_true_to_source(
    operator: nn.Module, y: Tensor, expected: Tensor, variant: str = ""
) -> None:
    """Assert that y, an output in float64, is the expected one up to the stated error."""
    bound = stated(operator, variant).error
    assert bound is not None
    y, expected = y.detach(), expected.detach()
    assert y.shape == expected.shape
    error = float((y - expected).abs().max() / expected.abs().max())
    assert error <= bound, f"{error:.1e} above the stated {bound:.0e}"
