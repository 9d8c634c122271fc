"""Schedules of the learning rate, and which weights are evaluated under each.

All but `Cosine` know no budget: a run under them is a prefix of every longer one. A training loop
asks for the `factor` on the peak rates before a step, tells that a step was `updated`, evaluates
within `weights()`, and tells what it found by `validated`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from mechbench.errors import ConfigError
from mechbench.training.likeness import check_like
from mechbench.training.optimiser import lr_factor, make_optimizer, parameter_groups
from mechbench.training.schedule_free import ScheduleFreeAdamW, swapped

WARMUP_STEPS = 50


class Constant:
    """Linear warm-up, then the peak rate; the weights evaluated are those in training.

    Args:
        model: in training, on its device.
        optimizer: from `optimizer`.
        warmup_steps: of the warm-up.
    """

    branching = False  # these steps will be undone
    aside_tokens = 0  # spent on steps that were undone

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, warmup_steps: int = WARMUP_STEPS
    ) -> None:
        self._model, self._optimizer, self._warmup_steps = model, optimizer, warmup_steps

    @staticmethod
    def optimizer(
        model: nn.Module, lr: float, weight_decay: float, **options: Any
    ) -> torch.optim.Optimizer:
        """Return the optimizer that the schedule is made for, here AdamW."""
        return make_optimizer(model, lr, weight_decay)

    def factor(self, step: int, tokens: int) -> float:
        """Return the factor on the peak rates for the next step.

        Args:
            step: steps done so far.
            tokens: spent so far, also on steps that were undone.
        """
        return min(1.0, (step + 1) / max(1, self._warmup_steps))

    def updated(self, step: int) -> None:
        """Note that a step was taken, number `step` from 1 on."""

    def due(self, tokens: int) -> bool:
        """Return whether the schedule itself needs a validation now; asked while `branching`."""
        return False

    def validated(self, step: int, tokens: int, accuracy: float) -> int:
        """Note a validation; return the step from which training goes on, mostly `step` itself."""
        return step

    def weights(self) -> AbstractContextManager[None]:
        """Return a context in which the model holds the weights to be evaluated."""
        return nullcontext()

    def state_dict(self) -> dict[str, Any]:
        """Return what a run that is carried on needs beside model and optimizer."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave; model and optimizer are loaded before."""

    def check(self, state: object, tokens: int, moments: Sequence[Tensor]) -> None:
        """Check that a file's state is one that `load_state_dict` may take.

        Args:
            state: as read.
            tokens: that the run has spent.
            moments: what the file holds of the optimizer, in its order.

        Raises:
            ValueError: it is not.
        """
        if not isinstance(state, dict) or state:
            raise ValueError("its schedule is another")


class Cosine(Constant):
    """Linear warm-up, and a cosine to zero over the budget.

    Args:
        model: in training.
        optimizer: from `optimizer`.
        warmup_steps: of the warm-up.
        budget_tokens: at which the rate is zero.

    Raises:
        ConfigError: the budget is not positive.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        warmup_steps: int = WARMUP_STEPS,
        *,
        budget_tokens: float,
    ) -> None:
        super().__init__(model, optimizer, warmup_steps)
        self._budget_tokens = above("budget_tokens", budget_tokens, 0)

    def factor(self, step: int, tokens: int) -> float:
        """Return the factor on the peak rates, as `mechbench.training.optimiser.lr_factor`."""
        return lr_factor(step, tokens / self._budget_tokens, self._warmup_steps)


class Averaged(Constant):
    """Warm-up and constant rate, evaluated with averaged weights.

    The average moves by min(1, sharpness / t) of the way to the weights of step t, so that step i
    weighs about as (i / t)^(sharpness - 1): on average it is 1 / (sharpness + 1) of all steps old,
    however many they are. A fixed horizon would depend on how long a run is meant to be. Buffers
    are those of training.

    Source: the growing window of the averages in Haegele et al. 2024 (arXiv:2405.18392), which
    average fixed windows; the weights are the polynomial decay of Shamir & Zhang 2013
    (arXiv:1212.1824).

    Args:
        model: in training.
        optimizer: from `optimizer`.
        warmup_steps: of the warm-up.
        sharpness: 1 averages all steps alike, more looks at later ones.

    Raises:
        ConfigError: the sharpness is not positive.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        warmup_steps: int = WARMUP_STEPS,
        *,
        sharpness: float = 9.0,
    ) -> None:
        super().__init__(model, optimizer, warmup_steps)
        self._sharpness = above("sharpness", sharpness, 0)
        self._parameters: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        self._averages = [p.detach().clone() for p in self._parameters]

    @torch.no_grad()
    def updated(self, step: int) -> None:
        """Move the average, in place."""
        share = min(1.0, self._sharpness / step)
        torch._foreach_lerp_(self._averages, self._parameters, share)

    def weights(self) -> AbstractContextManager[None]:
        """Return a context in which the model holds the average."""
        return swapped(self._parameters, self._averages)

    def state_dict(self) -> dict[str, Any]:
        """Return the average."""
        return {"averages": [average.clone() for average in self._averages]}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the average, in place."""
        torch._foreach_copy_(self._averages, state["averages"])

    def check(self, state: object, tokens: int, moments: Sequence[Tensor]) -> None:
        """Check that there is an average of every parameter."""
        if not isinstance(state, dict) or set(state) != {"averages"}:
            raise ValueError("its schedule is another")
        averages = state["averages"]
        if not isinstance(averages, list) or len(averages) != len(self._averages):
            raise ValueError("its averages do not fit the model")
        for average, own in zip(averages, self._averages, strict=True):
            check_like("an average", average, own)


class ScheduleFree(Constant):
    """Warm-up and constant rate of `ScheduleFreeAdamW`, evaluated at its average.

    Args:
        model: in training.
        optimizer: from `optimizer`.
        warmup_steps: of the warm-up.
        beta1: how far gradients are taken from the average: 1 is at it. For `optimizer`.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        warmup_steps: int = WARMUP_STEPS,
        *,
        beta1: float = 0.9,
    ) -> None:
        super().__init__(model, optimizer, warmup_steps)
        assert isinstance(optimizer, ScheduleFreeAdamW)
        self._free = optimizer

    @staticmethod
    def optimizer(
        model: nn.Module, lr: float, weight_decay: float, **options: Any
    ) -> torch.optim.Optimizer:
        """Return schedule-free AdamW on `parameter_groups`."""
        groups = parameter_groups(model, lr, weight_decay)
        return ScheduleFreeAdamW(groups, (options.get("beta1", 0.9), 0.98))

    def weights(self) -> AbstractContextManager[None]:
        """Return a context in which the model holds x."""
        return swapped(self._free.parameters(), self._free.averages())


def above(name: str, value: float, least: float) -> float:
    """Return a number.

    Raises:
        ConfigError: it is not above `least`.
    """
    if not value > least:
        raise ConfigError(f"{name} is {value}: expected a number above {least}")
    return value
