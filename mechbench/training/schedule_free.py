"""Schedule-free AdamW: averaging in place of a schedule, so no budget need be known.

Of every parameter there are three sequences: z takes AdamW's steps without a first moment, x is an
average of z, and gradients are taken at y, between the two. In step t, of rate r:

    v <- beta2 v + (1 - beta2) g^2
    z <- z - r (g / (sqrt(v / (1 - beta2^t)) + eps) + decay y)
    c <- r^2 / (r_1^2 + ... + r_t^2)
    x <- (1 - c) x + c z
    y <- (1 - beta1) z + beta1 x

Source: Defazio et al. 2024 (The Road Less Scheduled, arXiv:2405.15682), Algorithm 1. The rate, with
its warm-up, is set from outside as of every optimizer here; beta2 is that of the package's AdamW,
not the 0.999 of the paper.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from mechbench.errors import ConfigError
from mechbench.training.likeness import check_like

_KEPT = ("_y", "_z", "_x", "_squares", "_power", "_total")  # what a later step depends on


@contextmanager
def swapped(parameters: list[Tensor], values: list[Tensor]) -> Iterator[None]:
    """Give parameters other values for the context, in place; then bit for bit their own."""
    own = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        torch._foreach_copy_(parameters, values)
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(parameters, own)


class ScheduleFreeAdamW(torch.optim.Optimizer):
    """The optimizer of the equations above; between steps the parameters are y.

    The sequences of all parameters lie side by side, so that a step is some twenty launches
    whatever the model, and it can be captured as a CUDA graph: counts and rates are tensors. A
    parameter without a gradient stays as it is.

    Args:
        groups: from `parameter_groups`: each with "params", "peak_lr" and "weight_decay". Their
            "lr" becomes a tensor, which `set_lr` fills.
        betas: of y between z and x, and of the second moment.
        eps: added to the root of the second moment.

    Raises:
        ConfigError: a beta is outside [0, 1), eps is not positive, or the parameters differ in
            dtype or device.
    """

    # What PyTorch wraps around it loads its compiler, for one to ten seconds.
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)

    def __init__(
        self,
        groups: list[dict[str, Any]],
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
    ) -> None:
        if not all(0 <= beta < 1 for beta in betas):
            raise ConfigError(f"betas are {betas}: expected numbers of [0, 1)")
        if not eps > 0:
            raise ConfigError(f"eps is {eps}: expected a positive number")
        super().__init__(groups, {})
        self._betas, self._eps = betas, eps
        self._all = [p for group in self.param_groups for p in group["params"]]
        if len({(p.device, p.dtype) for p in self._all}) != 1:
            raise ConfigError("schedule-free AdamW takes parameters of one dtype on one device")
        like = self._all[0].detach()
        self._y = torch.cat([p.detach().flatten() for p in self._all])
        self._z, self._x = self._y.clone(), self._y.clone()
        self._squares, self._grads = torch.zeros_like(self._y), torch.zeros_like(self._y)
        # In float64: little is left of 1 - 0.98 in float32.
        self._power = torch.ones((), dtype=torch.float64, device=like.device)  # beta2^t
        self._total = like.new_zeros(())  # of the squared rates
        self._rates = like.new_tensor([group["peak_lr"] for group in self.param_groups])
        for group, rate in zip(self.param_groups, self._rates, strict=True):
            group["lr"] = rate
        sizes = torch.tensor(
            [sum(p.numel() for p in group["params"]) for group in self.param_groups]
        )
        self._owner = torch.arange(len(sizes)).repeat_interleave(sizes).to(like.device)
        self._decays = like.new_tensor([g["weight_decay"] for g in self.param_groups])[self._owner]
        # The weights of the average are the same for all groups, but for one whose rate is 0.
        peaks = [group["peak_lr"] for group in self.param_groups]
        self._leader = peaks.index(max(peaks))
        self._active = tuple(True for _ in self._all)
        self._moves = torch.ones_like(self._y)  # 0 where a parameter has no gradient

    def parts(self, flat: Tensor) -> list[Tensor]:
        """Return what of a flat sequence belongs to each parameter, in its shape."""
        pieces = torch.split(flat, [p.numel() for p in self._all])
        return [piece.view(p.shape) for piece, p in zip(pieces, self._all, strict=True)]

    def averages(self) -> list[Tensor]:
        """Return x of every parameter, in the order of the groups: the weights to evaluate."""
        return self.parts(self._x)

    def parameters(self) -> list[Tensor]:
        """Return the parameters, in the order of the groups."""
        return self._all

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take a step with the gradients of now."""
        self._collect()
        beta1, beta2 = self._betas
        g = self._grads
        self._power.mul_(beta2)
        self._squares.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        root = (self._squares / (1 - self._power)).sqrt_().add_(self._eps)
        direction = (g / root).addcmul_(self._decays, self._y)
        rates = self._rates.index_select(0, self._owner).mul_(self._moves)
        self._z.addcmul_(direction, rates, value=-1)
        weight = self._rates[self._leader].square()
        self._total.add_(weight)
        # Before the first rate above 0 nothing has moved.
        share = weight / self._total.clamp_min(torch.finfo(weight.dtype).tiny)
        self._x.lerp_(self._z, share)
        torch.lerp(self._z, self._x, beta1, out=self._y)
        torch._foreach_copy_(self._all, self.parts(self._y))

    def _collect(self) -> None:
        """Bring the gradients together."""
        active = tuple(p.grad is not None for p in self._all)
        if active != self._active:
            self._active = active
            self._grads.zero_()
            for part, moves in zip(self.parts(self._moves), active, strict=True):
                part.fill_(float(moves))
        places = [p for p, there in zip(self.parts(self._grads), active, strict=True) if there]
        torch._foreach_copy_(places, [p.grad for p in self._all if p.grad is not None])

    def state_dict(self) -> dict[str, Any]:
        """Return the sequences and counts; rates and decays are the configuration's."""
        return {name.strip("_"): getattr(self, name).clone() for name in _KEPT}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what `state_dict` gave, in place, the parameters' values among it.

        Raises:
            ConfigError: it is of other parameters.
        """
        for name in _KEPT:
            there = state_dict.get(name.strip("_"))
            if there is None or there.shape != getattr(self, name).shape:
                raise ConfigError("the stored state of schedule-free AdamW has other parameters")
        for name in _KEPT:
            getattr(self, name).copy_(state_dict[name.strip("_")])
        torch._foreach_copy_(self._all, self.parts(self._y))

    def check(self, state: object) -> None:
        """Check that a file's state is one that `load_state_dict` may take.

        Raises:
            ValueError: it is not.
        """
        own = self.state_dict()
        if not isinstance(state, dict) or set(state) != set(own):
            raise ValueError("its optimizer keeps something else than schedule-free AdamW")
        for name, value in own.items():
            check_like(f"{name} of its optimizer", state[name], value)
        if not 0 < state["power"].item() <= 1 or not 0 <= state["total"].item() < math.inf:
            raise ValueError("its optimizer has lost count of its steps")
