"""AdamW with clipping of the gradient's norm, for small models on a GPU: four launches a step.

The update of PyTorch's AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101), on the same numbers but
for the order of roundings; what it keeps, stores and loads is the same, too.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mechbench.ops.triton import unavailable


def flat_adamw_takes(parameters: Iterable[Tensor]) -> bool:
    """Return whether `FlatAdamW` can update these parameters: float32, on one GPU, with Triton."""
    parameters = list(parameters)
    return len({p.device for p in parameters}) == 1 and all(
        p.dtype == torch.float32 and p.is_contiguous() and unavailable(p) is None
        for p in parameters
    )


@dataclass(frozen=True)
class _Plan:
    """Which parameters have a gradient, and where the parts of each lie."""

    key: tuple[int, ...]
    parameters: list[Tensor]
    places: list[Tensor]  # for their gradients
    counted: Tensor  # (n parameters,): 1 where a step is counted
    blocks: dict[str, Tensor]  # see `kernels.update_`


class FlatAdamW(torch.optim.AdamW):
    """AdamW whose moments and gradients lie side by side, so that one kernel updates everything.

    A parameter without a gradient is left as it is. `clip` comes before `step`, or not at all.

    Args:
        groups: parameter groups with "params" and "weight_decay", and "peak_lr" for `set_rates`.
        betas: decay rates of the moments.

    The parameters must satisfy `flat_adamw_takes`.
    """

    # What PyTorch wraps around these loads its compiler, for one to ten seconds.
    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)

    def __init__(self, groups: list[dict[str, Any]], betas: tuple[float, float]) -> None:
        super().__init__(groups, betas=betas)
        from mechbench.ops.adamw.kernels import BLOCK

        self._block = BLOCK
        self._all = [p for group in self.param_groups for p in group["params"]]
        device = self._all[0].device
        starts = [0]
        for p in self._all:
            starts.append(starts[-1] + -(-p.numel() // BLOCK) * BLOCK)
        self._starts = starts
        self._grads, *moments = (torch.zeros(starts[-1], device=device) for _ in range(3))
        self._moments = moments[0], moments[1]
        self._steps = torch.zeros(len(self._all), device=device)
        self._decays = torch.tensor([g["weight_decay"] for g in self.param_groups], device=device)
        self._peaks = torch.tensor([g["peak_lr"] for g in self.param_groups], device=device)
        self._rates = self._peaks.clone()
        self._plan: _Plan | None = None
        self._norm: Tensor | None = None
        self._max_norm = 0.0
        self._share()

    def set_rates(self, factor: float) -> None:
        """Set every group's rate to `factor` times its peak."""
        torch.mul(self._peaks, factor, out=self._rates)

    def restart(self, groups: list[dict[str, Any]]) -> None:
        """Forget all steps, and take the rates and decays of these groups, of as many parameters.

        In place, so that captured steps go on with them.
        """
        for own, group in zip(self.param_groups, groups, strict=True):
            own |= {key: group[key] for key in ("peak_lr", "weight_decay")}
        device = self._grads.device
        for flat, key in ((self._peaks, "peak_lr"), (self._decays, "weight_decay")):
            flat.copy_(torch.tensor([group[key] for group in groups], device=device))
        for flat in (self._steps, *self._moments):
            flat.zero_()
        self._norm = None

    def clip(self, max_norm: float) -> Tensor:
        """Collect the gradients for the next step, to be clipped there; return their norm, ()."""
        plan = self._planned()
        torch._foreach_copy_(plan.places, [p.grad for p in plan.parameters if p.grad is not None])
        self._norm, self._max_norm = torch.linalg.vector_norm(self._grads), max_norm
        return self._norm

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take a step with the gradients that `clip` collected, or with those of now."""
        from mechbench.ops.adamw.kernels import update_

        if self._norm is None:
            self.clip(float("inf"))
        plan, norm, self._norm = self._planned(), self._norm, None
        assert norm is not None
        self._steps += plan.counted
        group = self.param_groups[0]
        update_(
            plan.blocks, self._steps, self._rates, self._decays, self._moments, self._grads,
            norm, self._max_norm, group["betas"], group["eps"],
        )  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave; learning rates stay those of `set_rates`."""
        inspect.unwrap(torch.optim.AdamW.load_state_dict)(self, state_dict)
        self._share()

    @torch.no_grad()
    def _share(self) -> None:
        """Make the state of every parameter a part of the flat buffers, with the values it has."""
        for group, rate in zip(self.param_groups, self._rates, strict=True):
            group["lr"] = rate
        for i, p in enumerate(self._all):
            own = self._part(self._steps, i), *(self._part(x, i) for x in self._moments)
            there = self.state.get(p, {})
            for key, part in zip(("step", "exp_avg", "exp_avg_sq"), own, strict=True):
                part.copy_(there[key]) if key in there else part.zero_()
                there[key] = part
            self.state[p] = there

    def _part(self, flat: Tensor, i: int) -> Tensor:
        if flat is self._steps:
            return flat[i]
        p = self._all[i]
        return flat[self._starts[i] : self._starts[i] + p.numel()].view(p.shape)

    def _planned(self) -> _Plan:
        """Return the plan for the parameters that have a gradient now, where they are now."""
        key = tuple(0 if p.grad is None else p.data_ptr() for p in self._all)
        if self._plan is None or self._plan.key != key:
            self._plan = self._make_plan(key)
        return self._plan

    def _make_plan(self, key: tuple[int, ...]) -> _Plan:
        self._grads.zero_()  # of what has none now
        owner_of = {id(p): g for g, group in enumerate(self.param_groups) for p in group["params"]}
        rows = [
            (key[i] + 4 * at, self._starts[i] + at, min(self._block, p.numel() - at), i,
             owner_of[id(p)])
            for i, p in enumerate(self._all)
            if key[i]
            for at in range(0, p.numel(), self._block)
        ]  # fmt: skip
        names = {
            "addresses": torch.int64, "starts": torch.int64, "lengths": torch.int32,
            "owners": torch.int32, "groups": torch.int32,
        }  # fmt: skip
        device = self._grads.device
        columns = zip(*rows, strict=True) if rows else [()] * len(names)
        return _Plan(
            key,
            [p for i, p in enumerate(self._all) if key[i]],
            [self._part(self._grads, i) for i in range(len(key)) if key[i]],
            torch.tensor([float(bool(address)) for address in key], device=device),
            {
                name: torch.tensor(column, dtype=dtype, device=device)
                for (name, dtype), column in zip(names.items(), columns, strict=True)
            },
        )
