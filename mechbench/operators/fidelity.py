"""How true an operator is to its source, as its class says in an attribute `fidelity`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fidelity:
    """One comparison of an operator with what its source says.

    Attributes:
        compared_with: what it was compared with: the paper's equation, or released code.
        error: the largest difference of an output from a slow loop in float64, divided by the
            largest output, at most; the operator's test holds it to that. None: not of our making.
        deviations: where the defaults stay apart from the source, and why.
        variant: the options under which this holds; empty: the defaults.
    """

    compared_with: str
    error: float | None
    deviations: str = "none known"
    variant: str = ""
