"""The operator under examination, with inputs for it, and what is found about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mechbench.errors import MechbenchError
from mechbench.operators.base import make_operator
from mechbench.record.seeds import derive
from mechbench.training.memory import is_out_of_memory


@dataclass(frozen=True)
class Finding:
    """One thing found about the operator, printed as a line."""

    name: str
    verdict: str  # PASS, FAIL, yes, no; "" for a mere figure, "-" where it was not measured
    text: str
    value: Any = None  # the figure as JSON


@dataclass(frozen=True)
class Subject:
    """An operator with its options, ready to be built at any length."""

    operator: str
    options: dict[str, Any]
    d_model: int
    seqlen: int
    device: str
    seed: int = 0
    steps: int = 200  # of the training after which it is looked at again
    _built: dict[int, nn.Module] = field(default_factory=dict)

    def build(self, max_seqlen: int | None = None, *, seed: int | None = None) -> nn.Module:
        """Return a fresh operator in evaluation mode, the same one for the same seed."""
        torch.manual_seed(derive(self.seed if seed is None else seed, "check"))
        L = self.seqlen if max_seqlen is None else max_seqlen
        module = make_operator(self.operator, d_model=self.d_model, max_seqlen=L, **self.options)
        return module.to(self.device).eval()

    def module(self) -> nn.Module:
        """Return the operator for `seqlen`, built once; who changes it takes a copy."""
        if 0 not in self._built:
            self._built[0] = self.build()
        return self._built[0]

    def exact(self) -> tuple[nn.Module, torch.dtype]:
        """Return a float64 copy of the operator, or the operator where it knows no float64."""
        try:
            module = self.build().double()
            with torch.no_grad():
                module(self.inputs(2, 8, dtype=torch.float64))
        except Exception as error:
            if is_out_of_memory(error):
                raise
            return self.module(), torch.float32
        return module, torch.float64

    def inputs(
        self, B: int, L: int, *, label: str = "u", dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Return standard normal inputs (B, L, D), drawn on the CPU; longer ones start alike."""
        generator = torch.Generator().manual_seed(derive(self.seed, "check", label))
        u = torch.randn(L, B, self.d_model, generator=generator).transpose(0, 1).contiguous()
        return u.to(self.device, dtype)


def judged(name: str, measure: Callable[[], Finding]) -> Finding:
    """Return what `measure` finds; an error of the operator, or its exit, is a FAIL.

    Raises:
        MechbenchError: the error is the user's, not the operator's.
    """
    try:
        return measure()
    except MechbenchError:
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            return Finding(name, "-", "out of memory")
        text = " ".join(str(error).split())[:200]
        return Finding(name, "FAIL", f"raised {type(error).__name__}: {text}")
