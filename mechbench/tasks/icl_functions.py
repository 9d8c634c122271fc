"""In-context linear regression: predict w x from examples of x and w x.

One example with d = 2 (a position holds two numbers and a slot for y) and L = 8, so 4 points:

    position       0     1     2     3     4     5     6
    inputs, x   -0.5   0.0   1.1   0.0   0.3   0.0   2.0
                 1.0   0.0   0.4   0.0  -0.7   0.0   1.0
    inputs, y    0.0   0.6   0.0   1.3   0.0   0.0   0.0
    targets        .     .     .     .     .     .   2.7
    dense          .     .     .     .   0.0     .   2.7

Each example draws its own weights w ~ N(0, I / d) and L/2 points x ~ N(0, I); y = w x has unit
variance. The y of the last point is scored. From point d + 1 on, the earlier points determine y, so
training may use these points as dense targets. Source: Garg et al. 2022, section 2; Poli et al.
2023 (Hyena), appendix A.1, which varies the dimension d where other tasks vary the vocabulary; here
too, `vocab_size` is d.

Inputs are numbers: the model reads them through a linear map, outputs one number per position and
is trained on the squared error. A prediction counts as right within 0.1, a tenth of y's standard
deviation; the oracle is least squares. Deviations: w is scaled by 1/sqrt(d), and y has a slot of
its own beside x, whereas Garg et al. write it into the first slot of x.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.errors import SeqlenError
from mechbench.tasks.base import IGNORE, TOLERANCE, UNKNOWN, Batch, Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_RANGE = 1 << 24  # torch.randint's stream changed between releases for larger ranges
_GRID = 1 << 12  # x and w are multiples of 1 / _GRID, so that y is the same on every machine


@register_task(
    "icl-functions",
    source="Garg et al. 2022, section 2; Poli et al. 2023, appendix A.1",
    measures="in-context learning",
)
@dataclass(frozen=True)
class IclFunctions(Task):
    """In-context regression: predict a linear function from examples of it.

    Attributes:
        vocab_size: d, the dimension of x.
        seqlen: L, twice the number of points; a model reads L - 1 positions of d + 1 numbers.

    Raises:
        SeqlenError: seqlen odd or below 2 d + 2.
    """

    vocab_size: int
    seqlen: int

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 5, "seqlen": 32}
    vocab_name: ClassVar[str] = "dimensions"

    def __post_init__(self) -> None:
        least = 2 * self.vocab_size + 2
        if self.seqlen % 2 or self.seqlen < least:
            near = max(least, self.seqlen + self.seqlen % 2)
            raise SeqlenError(
                f"seqlen is {self.seqlen}: icl-functions in {self.vocab_size} dimensions needs an "
                f"even number of at least {least}; the nearest is {near}"
            )

    @property
    def input_dim(self) -> int:
        """Numbers per position: x and y."""
        return self.vocab_size + 1

    @property
    def input_seqlen(self) -> int:
        """Positions a model reads: x of every point, and y of all but the last."""
        return self.seqlen - 1

    @property
    def chance(self) -> float:
        """Accuracy of always predicting zero: given x, y is normal with variance |x|^2 / d."""
        d, n = self.vocab_size, 2000
        radii = [(i + 0.5) / n * (math.sqrt(d) + 8) for i in range(n)]  # values of |x|
        weights = [math.exp((d - 1) * math.log(r * r / d) / 2 - (r * r - d) / 2) for r in radii]
        share = [math.erf(TOLERANCE * math.sqrt(d / 2) / r) for r in radii]
        return sum(w * s for w, s in zip(weights, share, strict=True)) / sum(weights)

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """Always zero, and the prediction that takes the average of y x for w."""
        return {"zero": lambda inputs: inputs[..., 0] * 0, "averaging": self._averaging}

    def describe(self, token: list[float]) -> str:
        """Return y, or the first number of x with dots for the others."""
        *x, y = token
        if not any(x):
            return f"y {y:.1f}"
        return f"{x[0]:.1f}" + (".." if len(x) > 1 else "")

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, L - 1, d + 1) examples on the generator's device."""
        import torch

        B, n, d = batch_size, self.seqlen // 2, self.vocab_size
        device = generator.device

        def draw(*shape: int) -> Tensor:
            """Draw normal float64 numbers on the grid."""
            uniform = torch.randint(_RANGE, shape, generator=generator, device=device) + 0.5
            normal = torch.erfinv(uniform.double() / (_RANGE // 2) - 1) * math.sqrt(2)
            return (normal * _GRID).round() / _GRID

        x, w = draw(B, n, d), draw(B, d, 1)
        y = ((x @ w)[..., 0] / math.sqrt(d)).float()  # (B, n); sums of grid numbers are exact
        inputs = torch.zeros(B, 2 * n - 1, d + 1, device=device)
        inputs[:, 0::2, :d] = x
        inputs[:, 1::2, d] = y[:, :-1]
        targets = torch.full(inputs.shape[:2], float(IGNORE), device=device)
        dense = targets.clone()
        targets[:, -1] = y[:, -1]
        dense[:, 2 * d :: 2] = y[:, d:]
        return Batch(inputs, targets, dense)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Solve least squares over the points before each x, in float64."""
        import torch

        d = self.vocab_size
        x, y, query = self._points(inputs)
        answers = torch.full(inputs.shape[:2], float(UNKNOWN), device=inputs.device)
        if x.shape[1] >= d:
            gram = (x[..., :, None] * x[..., None, :]).cumsum(1)  # (B, P, d, d)
            moment = (x * y[..., None]).cumsum(1)
            w, info = torch.linalg.solve_ex(gram[:, d - 1 :], moment[:, d - 1 :])
            guess = torch.where(info == 0, (w * query[:, d - 1 :]).sum(2), UNKNOWN)
            answers[:, self._parity(inputs) :: 2][:, d:] = guess.float()
        return answers

    def window_guess(self, inputs: Tensor, at: Tensor) -> Tensor:
        """Predict with the shortest w that fits the visible points: the posterior mean of w."""
        import torch

        x, y, query = self._points(inputs)
        if not x.shape[1]:
            return torch.zeros(len(inputs), device=inputs.device)
        w = (torch.linalg.pinv(x) @ y[..., None])[..., 0]  # (B, d)
        guess: Tensor = (w * query[:, -1]).sum(1).float()
        return guess

    def _parity(self, inputs: Tensor) -> int:
        """Return the position of the first x, given that the last position is an x."""
        return (inputs.shape[1] - 1) % 2

    def _points(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the visible points, x (B, P, d) and y (B, P), and the x (B, P, d) after each."""
        d, first = self.vocab_size, self._parity(inputs)
        x = inputs[:, first::2, :d].double()
        return x[:, :-1], inputs[:, first + 1 :: 2, d].double(), x[:, 1:]

    def _averaging(self, inputs: Tensor) -> Tensor:
        import torch

        x, y, query = self._points(inputs)
        number = torch.arange(1, x.shape[1] + 1, device=inputs.device)
        w = (x * y[..., None]).cumsum(1) / number[:, None]
        guess = inputs[..., 0] * 0
        guess[:, self._parity(inputs) :: 2][:, 1:] = (w * query).sum(2).float()
        return guess
