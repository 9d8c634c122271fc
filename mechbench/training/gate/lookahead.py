"""Does an output depend on later inputs? Judged by how the movement scales, not by its size.

Later inputs are changed and the outputs before them watched. A layer that is causal on paper moves
all the same if it mixes all positions and lets the later ones cancel, as an FFT does: by rounding,
in whatever precision it computes inside, amplified by all that follows. So there is no one bound.
Three properties tell rounding from a look-ahead, and each is measured on the same weights:

- Rounding does not shrink with the change. Whether later inputs change by as much as they vary or
  by a thousandth of that, every sum is rounded anew, and outputs move by about the same. A
  look-ahead of any smooth kind moves them a thousand times less. It counts as one where the large
  change moves outputs more than _RATIO times as far as the small one.
- Rounding falls anywhere. In half precision it shows as single flips of a last bit at random
  positions, and an output that happens to lie next to a tie flips with every second change, or with
  nearly all of them if it was rounded the rare way without one. So what the ratio finds must return
  at the same position under nearly every other change of its size, differ from one change to the
  next, and not be what other small changes do.
- Rounding is less than what a real change does. A look-ahead that is not smooth (a rounded or a
  hashed one) moves outputs as far under a small change; it counts if that is more than a few times
  what they move when their own past changes as little, or more than any rounding does.

By gradient the same holds: of a random weighting of early outputs the gradient at later inputs is
rounding if it is not additive in the weighting, and a look-ahead if it is. But where numbers are
kept in half precision, the same ones for every input, their rounding is additive, too: a long
convolution that keeps its filters' spectra so has taps for later inputs, of 1.4e-4 of the others
(root mean square, bfloat16, 8,192 tokens), while its outputs are rounded by ten times that. So in
half precision a gradient counts from _UNUSED of a rounding on, and what counts there is looked at
again (`second_look`).

What a look-ahead leaves below the rounding of the precision that the model is trained and scored
in, cannot be told from it there.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Maps a change (B, L, D) of the inputs, or None, to the inputs (B, L, D) and outputs (B, L, F).
Function = Callable[[Tensor | None], tuple[Tensor, Tensor]]

_SMALL = 1e-3  # of the inputs' size: a change that a look-ahead follows and rounding does not
_SMALL_HALF = 1e-2  # the same in half precision, where a thousandth is lost at the first cast
_SMALL_INSIDE = 3e-3  # large enough for a cast to half precision inside to keep some of it
_RATIO = 16.0
_HARD = 4.0  # times the movement under a small change of the past
_LIMIT, _LIMIT_HALF = 3e-2, 0.25  # of the largest output: more than any rounding
_DRAWS, _RETURNS = 16, 15  # changes, and how many of them must show it at the same position
_UNUSED = 1 / 64  # of the spacing of numbers at the largest gradient: 1.2e-4 in bfloat16
_CUTS = 4  # wanted, a row each; where there are few rows, in a second pass
_REPEATS = {torch.float32: 1e-4, torch.float64: 1e-9}
_REPEATS_HALF = 3e-2


@dataclass(frozen=True)
class Fault:
    """What was found wrong.

    Attributes:
        kind: "ahead", "mixed", "unstable", "restless" or "not finite".
        text: for people.
        gradient: the one found, as a share of the largest; 0 if none was looked at.
    """

    kind: str
    text: str
    gradient: float = 0.0


def tolerance(dtype: torch.dtype) -> float:
    """Return how far outputs of the same input may differ, relative to the largest."""
    return _REPEATS.get(dtype, _REPEATS_HALF)


def model_function(model: nn.Module, inputs: Tensor) -> Function:
    """Return the logits of `model` as a function of what its embedding gives for `inputs`."""

    def run(change: Tensor | None) -> tuple[Tensor, Tensor]:
        caught: list[Tensor] = []

        def embedded(module: nn.Module, args: object, x: Tensor) -> Tensor:
            caught.append(_leaf(x, change))
            return caught[0]

        handle = model.embed.register_forward_hook(embedded)  # type: ignore[union-attr]
        try:
            y = model(inputs)
        finally:
            handle.remove()
        return caught[0], y

    return run


def operator_function(operator: nn.Module, u: Tensor) -> Function:
    """Return what `operator` gives as a function of a change of `u` (B, L, D)."""

    def run(change: Tensor | None) -> tuple[Tensor, Tensor]:
        x = _leaf(u, change)
        # A copy for the operator, as within a model: it may change its input in place.
        return x, operator(x.clone())

    return run


def _leaf(x: Tensor, change: Tensor | None) -> Tensor:
    x = x.detach() if change is None else x.detach() + change.to(x.dtype)
    return x.requires_grad_(torch.is_grad_enabled())


def cuts(seqlen: int, rows: int, seed: int, paying: Tensor | None = None) -> Tensor:
    """Return first positions that change, (passes, rows): none earlier is to notice.

    The ends and the middle, then by turns any position and one right after a scored output, where a
    look-ahead would pay.

    Args:
        seqlen: L, at least 2.
        rows: B; each row of a pass has its own cut.
        seed: of the choice.
        paying: positions of scored outputs.
    """
    generator = torch.Generator().manual_seed(seed)
    n = min(2, math.ceil(_CUTS / rows)) * rows
    chosen = torch.randint(1, max(2, seqlen - 1), (n,), generator=generator)
    after = None if paying is None else paying[paying < seqlen - 1].cpu() + 1
    if after is not None and len(after):
        drawn = after[torch.randint(len(after), (n,), generator=generator)]
        chosen[1::2] = drawn[1::2]
    fixed = [seqlen - 1, seqlen // 2, 1] if n > 2 else [seqlen - 1]
    chosen[: len(fixed)] = torch.tensor(fixed)
    return chosen.view(-1, rows)


def by_value(run: Function, at: Tensor, seed: int, *, grad: bool = False) -> Fault | None:
    """Look for outputs that move when later inputs change.

    Args:
        run: the function, deterministic but for what it is to be blamed for.
        at: (passes, B), from `cuts`.
        seed: of the changes.
        grad: record a graph, as training does.
    """
    with torch.set_grad_enabled(grad):
        x, y = (t.detach() for t in run(None))
        if not y.isfinite().all():
            return Fault("not finite", f"gives NaN or infinity at {y.shape[1]} tokens")
        for cut in at:
            found = _Value(run, x, y, cut.to(x.device), seed).judge()
            if found is not None:
                return found
    return None


@torch.no_grad()
def movement(run: Function, at: Tensor, seed: int) -> float:
    """Return how far outputs move when later inputs change by as much as they vary.

    Args:
        run: the function.
        at: (passes, B), from `cuts`.
        seed: of the changes.

    Returns:
        The most, relative to the largest output.
    """
    x, y = run(None)
    passes = (_Value(run, x, y, cut.to(x.device), seed) for cut in at)
    return max(float(one.moved().max()) for one in passes)


class _Value:
    """One pass: the movement of early outputs under changes of some size."""

    def __init__(self, run: Function, x: Tensor, y: Tensor, cut: Tensor, seed: int) -> None:
        self._run, self._y, self._cut = run, y, cut
        self._shape, self._size = x.shape[1:], x.float().square().mean().sqrt()
        self._later = torch.arange(x.shape[1], device=x.device) >= cut[:, None]  # (B, L)
        full = y.dtype in _REPEATS
        self._small, self._limit = (_SMALL, _LIMIT) if full else (_SMALL_HALF, _LIMIT_HALF)
        self._scale = y.abs().max().float().clamp_min(1e-30)
        self._generator = torch.Generator(x.device).manual_seed(seed)

    def judge(self) -> Fault | None:
        moved = self.moved()
        worst = float(moved.max())
        if worst == 0:
            return None
        again = float(self._difference(None).max())
        if not again <= tolerance(self._y.dtype):
            return Fault(
                "restless",
                "gives another output for the same input in evaluation mode: dropout or kept state",
            )
        noise = max(again, float(self.moved(self._small).max()))
        past = self._moved_by(self._change(self._small, ~self._later))
        bound = min(_HARD * float(past.max()), self._limit)
        returns = self._returns(moved, noise)
        if not worst <= bound or returns:
            rounded = 0.0 if returns else self._under_rounding()
            if worst <= 2 * rounded:
                return Fault(
                    "unstable",
                    f"moves its outputs by {rounded:.0e} of the largest under rounding alone, so "
                    "whether later inputs move them cannot be told",
                )
            row, position = divmod(int(moved.argmax()), moved.shape[1])
            others = torch.arange(len(moved), device=moved.device) != row
            elsewhere = self._change(1.0, others[:, None].expand_as(self._later))
            if float(self._difference(elsewhere)[row].max()) > _RATIO * noise:
                return Fault(
                    "mixed",
                    "gives a sequence another output when the rest of its batch changes",
                )
            return Fault(
                "ahead",
                f"output {position} of {moved.shape[1]} moves by {worst:.1e} of the largest when "
                f"inputs from {int(self._cut[row])} on change, and by {noise:.0e} when they change "
                "slightly",
            )
        return None

    def _returns(self, moved: Tensor, noise: float) -> bool:
        """Return whether a position moves by more than the noise under change after change."""
        bound = _RATIO * noise
        if not float(moved.max()) > bound:
            return False
        times, apart = (moved > bound).int(), torch.zeros_like(moved, dtype=torch.int32)
        last = None
        for _ in range(_DRAWS - 1):
            y = self._output(self._change(1.0, self._later))
            times += self._early(y, self._y) > bound
            if last is not None:
                apart += self._early(y, last) > bound
            last = y
            # The noise is measured again, too: rare flips show only in many changes, and only in
            # such as a cast inside the layer does not lose.
            noise = float(self.moved(max(self._small, _SMALL_INSIDE)).max())
            bound = max(bound, _RATIO * noise)
        returned = (times >= _RETURNS) & (apart >= _RETURNS - 2)  # of _DRAWS and _DRAWS - 2
        return bool(returned.any()) and float(moved.max()) > bound

    def _under_rounding(self) -> float:
        """Return how far outputs move when earlier inputs change by one rounding."""
        change = self._change(torch.finfo(self._y.dtype).eps, ~self._later)
        return float(self._moved_by(change).max())

    def moved(self, size: float = 1.0) -> Tensor:
        """Return how far outputs before the cut move, (B, L), relative to the largest output."""
        return self._moved_by(self._change(size, self._later))

    def _moved_by(self, change: Tensor) -> Tensor:
        return self._early(self._output(change), self._y)

    def _early(self, y: Tensor, other: Tensor) -> Tensor:
        return self._distance(y, other).masked_fill(self._later, 0)

    def _change(self, size: float, where: Tensor) -> Tensor:
        noise = torch.randn(self._shape, generator=self._generator, device=where.device)
        return size * self._size * noise * where[..., None]

    def _difference(self, change: Tensor | None) -> Tensor:
        return self._distance(self._output(change), self._y)

    def _distance(self, y: Tensor, other: Tensor) -> Tensor:
        return (y - other).abs().amax(-1).float() / self._scale

    def _output(self, change: Tensor | None) -> Tensor:
        return self._run(change)[1].detach()


def by_gradient(run: Function, cut: Tensor, seed: int) -> Fault | None:
    """Look for a gradient of early outputs at later inputs; parameters' gradients are added to.

    Args:
        run: the function, the same at every call.
        cut: (B,) a row of `cuts`.
        seed: of the weightings.
    """
    generator: torch.Generator | None = None
    later, unused = torch.zeros(()), 0.0

    def gradient(*weights: Tensor) -> tuple[Tensor, list[Tensor]]:
        nonlocal generator, later, unused
        with torch.enable_grad():
            x, y = run(None)
        if generator is None:
            unused = 0.0 if y.dtype in _REPEATS else _UNUSED * torch.finfo(y.dtype).eps
            generator = torch.Generator(x.device).manual_seed(seed)
            later = torch.arange(x.shape[1], device=x.device) >= cut.to(x.device)[:, None]
        drawn = list(weights) or [torch.randn(y.shape[1:], generator=generator, device=y.device)]
        weight = sum(drawn, torch.zeros_like(drawn[0])) * ~later[..., None]
        if y.requires_grad:
            # A sum, since PyTorch loads sympy, for seconds, where it is given a gradient.
            (y * weight.to(y.dtype)).sum().backward()  # type: ignore[no-untyped-call]
        g = torch.zeros_like(x) if x.grad is None else x.grad
        return g.float(), drawn

    one, first = gradient()
    early = one.abs().masked_fill(later[..., None], 0)
    ahead = one.abs() * later[..., None]
    worst, scale = float(ahead.max()), max(float(early.max()), 1e-30)
    if worst <= unused * scale:
        return None
    if worst <= _HARD * _SMALL * scale:  # it may be rounding
        other, second = gradient()
        both, _ = gradient(*first, *second)
        odd = ((both - one - other).abs() * later[..., None]).max()
        if worst <= _RATIO * float(odd):
            return None
    row, position, _ = (int(i) for i in torch.unravel_index(ahead.argmax(), ahead.shape))
    return Fault(
        "ahead",
        f"outputs before {int(cut[row])} of {ahead.shape[1]} have a gradient of "
        f"{worst / scale:.1e} of the largest at input {position}",
        worst / scale,
    )


def repeating(run: Function, seed: int) -> Function:
    """Return `run` with the same random numbers at every call, as training mode needs."""

    def again(change: Tensor | None) -> tuple[Tensor, Tensor]:
        torch.manual_seed(seed)
        return run(change)

    return again


@contextlib.contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Leave the global random generators as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
