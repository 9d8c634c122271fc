"""Warm-up, stable, decay: a trunk at constant rate, and short decaying branches that are undone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from mechbench.training.likeness import check_like
from mechbench.training.schedules import WARMUP_STEPS, Constant, above

_VALIDATED = (0.8, 0.9, 1.0)  # parts of a branch after which it is validated: solved is twice


@dataclass
class _Branch:
    """Where a branch left the trunk, and how long it is."""

    step: int
    tokens: int
    length_tokens: float
    validations: int = 0


class StableDecay(Constant):
    """Warm-up and constant rate, with decays to zero on the side.

    A branch goes from the trunk's weights over `share` of the trunk's tokens with the factor
    1 - sqrt(part done). It comes when the trunk has grown by `growth` since the last one, or by
    `stalled_growth` while the accuracy of the last `patience` validations was no better than the
    best before. What comes of it is evaluated; then weights, buffers and optimizer are put back bit
    for bit, and the trunk goes on with the very batches that the branch saw, as if there had been
    none. The tokens of branches are spent: `aside_tokens` counts them. By growth alone branches
    cost share growth / (growth - 1) of the trunk, 0.3 with the defaults.

    Source: Hu et al. 2024 (MiniCPM, arXiv:2404.06395); the decay of Haegele et al. 2024
    (arXiv:2405.18392), section 3. They decay once, at an end that is chosen.

    Args:
        model: in training.
        optimizer: from `optimizer`; its state must be tensors.
        warmup_steps: of the warm-up.
        share: of the trunk's tokens, for a branch.
        growth: of the trunk from branch to branch.
        stalled_growth: the same where validation stalls.
        patience: validations without progress that are a stall.
        first_tokens: of the trunk, before the first branch.

    Raises:
        ConfigError: one is out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        warmup_steps: int = WARMUP_STEPS,
        *,
        share: float = 0.1,
        growth: float = 1.5,
        stalled_growth: float = 1.25,
        patience: int = 4,
        first_tokens: float = 1e6,
    ) -> None:
        super().__init__(model, optimizer, warmup_steps)
        for name, value, least in (
            ("share", share, 0), ("growth", growth, 1), ("stalled_growth", stalled_growth, 1),
            ("patience", patience, 0), ("first_tokens", first_tokens, 0),
        ):  # fmt: skip
            above(name, value, least)
        self._share, self._growth, self._stalled_growth = share, growth, stalled_growth
        self._patience, self._first_tokens = patience, first_tokens
        self._best, self._stale, self._last_tokens = -1.0, 0, 0
        self._branch: _Branch | None = None
        self._trunk: list[Tensor] = []

    @property
    def branching(self) -> bool:  # type: ignore[override]
        """Whether the steps of now will be undone."""
        return self._branch is not None

    def factor(self, step: int, tokens: int) -> float:
        """Return the factor on the peak rates for the next step."""
        factor = super().factor(step, tokens)
        if self._branch is None:
            return factor
        return factor * (1 - math.sqrt(min(1.0, self._part(tokens))))

    def due(self, tokens: int) -> bool:
        """Return whether the branch has come to where it is validated."""
        branch = self._branch
        return branch is not None and self._part(tokens) >= _VALIDATED[branch.validations]

    def validated(self, step: int, tokens: int, accuracy: float) -> int:
        """Begin a branch, or end one and return the step at which it began."""
        if self._branch is None:
            self._consider(step, tokens, accuracy)
            return step
        self._branch.validations += 1
        if self._branch.validations < len(_VALIDATED):
            return step
        self._put_back()
        step, self.aside_tokens = (
            self._branch.step, self.aside_tokens + tokens - self._branch.tokens,
        )  # fmt: skip
        self._branch = None
        return step

    def _part(self, tokens: int) -> float:
        assert self._branch is not None
        return (tokens - self._branch.tokens) / self._branch.length_tokens

    def _consider(self, step: int, tokens: int, accuracy: float) -> None:
        """Begin a branch if it is time."""
        self._stale = 0 if accuracy > self._best else self._stale + 1
        self._best = max(self._best, accuracy)
        trunk_tokens = tokens - self.aside_tokens
        growth = self._stalled_growth if self._stale >= self._patience else self._growth
        if trunk_tokens < max(self._first_tokens, growth * self._last_tokens):
            return
        self._stale, self._last_tokens = 0, trunk_tokens
        self._branch = _Branch(step, tokens, self._share * trunk_tokens)
        self._trunk = [tensor.detach().clone() for tensor in self._tensors()]

    def _tensors(self) -> list[Tensor]:
        """Return all that a step changes, in an order of its own."""
        state = [
            value
            for group in self._optimizer.param_groups
            for p in group["params"]
            for _, value in sorted(self._optimizer.state.get(p, {}).items())
            if isinstance(value, Tensor)
        ]
        return [*self._model.parameters(), *self._model.buffers(), *state]

    @torch.no_grad()
    def _put_back(self) -> None:
        # In place: captured steps go on with these tensors.
        for own, kept in zip(self._tensors(), self._trunk, strict=True):
            own.copy_(kept)
        self._trunk = []

    def state_dict(self) -> dict[str, Any]:
        """Return the counts, and in a branch where it began and with what."""
        return {
            "best": self._best,
            "stale": self._stale,
            "last_tokens": self._last_tokens,
            "aside_tokens": self.aside_tokens,
            "branch": None if self._branch is None else asdict(self._branch),
            "trunk": [tensor.clone() for tensor in self._trunk],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave."""
        self._best, self._stale = state["best"], state["stale"]
        self._last_tokens, self.aside_tokens = state["last_tokens"], state["aside_tokens"]
        self._branch = None if state["branch"] is None else _Branch(**state["branch"])
        device = next(self._model.parameters()).device
        self._trunk = [tensor.to(device, copy=True) for tensor in state["trunk"]]

    def check(self, state: object, tokens: int, moments: Sequence[Tensor]) -> None:
        """Check counts, and in a branch that there is all of what the trunk was."""
        if not isinstance(state, dict) or set(state) != _KEPT:
            raise ValueError("its schedule is another")
        counts = [state[name] for name in ("stale", "last_tokens", "aside_tokens")]
        branch, trunk = state["branch"], state["trunk"]
        if branch is not None:
            if not isinstance(branch, dict) or set(branch) != {f.name for f in fields(_Branch)}:
                raise ValueError("its branch is none")
            counts += [branch["step"], branch["tokens"], branch["validations"]]
            if not _is_number(branch["length_tokens"]) or branch["length_tokens"] <= 0:
                raise ValueError("its branch has no length")
            if type(branch["validations"]) is int and branch["validations"] >= len(_VALIDATED):
                raise ValueError("its branch is over")
        if any(type(count) is not int or not 0 <= count <= tokens for count in counts):
            raise ValueError("its schedule has lost count of its tokens")
        if not _is_number(state["best"]) or not -1 <= state["best"] <= 1:
            raise ValueError("its schedule has lost its best accuracy")
        here = [*self._model.parameters(), *self._model.buffers(), *moments]
        expected = here if branch is not None else []
        if not isinstance(trunk, list) or len(trunk) != len(expected):
            raise ValueError("its trunk does not fit the model")
        for value, own in zip(trunk, expected, strict=True):
            check_like("a tensor of its trunk", value, own)


_KEPT = {"best", "stale", "last_tokens", "aside_tokens", "branch", "trunk"}


def _is_number(value: object) -> bool:
    return isinstance(value, float | int) and math.isfinite(value)
