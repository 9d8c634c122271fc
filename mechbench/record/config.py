"""The configuration of a cell (one trained model) and its identity. No torch."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from mechbench.catalogue.settings import setting, settings, stored
from mechbench.errors import ConfigError, nearest

PROTOCOL = 3  # raised whenever the same configuration would train or score differently
ANYTIME = 3  # from this protocol on no step depends on the budget, and neither does the identity

# Seeds from here on are of cells that choose learning rates: they train on other examples, from
# other weights, than any cell that is reported, and are known by this alone wherever they lie.
TUNING_SEED = 1_000_000

LOSSES = ("both", "dense", "scored")
# Schedules of the learning rate; none knows the budget.
SCHEDULES = ("constant", "averaged", "wsd", "schedule-free")
SCHEDULE = "averaged"  # the default
# Fields added after results had been stored, with the values that those results imply.
ADDED: dict[str, Any] = {
    "n_train": 0, "max_seqlen": 0, "sources": {}, "short_conv": 0, "schedule": "cosine",
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Everything that decides a cell's result, fully resolved: no "auto" is left.

    What affects only speed (micro-batch, device index, checkpoint interval) is kept elsewhere. The
    budget says how far training goes, not how: it is no part of the identity.
    """

    operator: str
    task: str
    operator_options: dict[str, Any] = field(default_factory=dict)
    task_options: dict[str, Any] = field(default_factory=dict)
    task_version: int = 1
    seqlen: int = 64
    vocab_size: int = 20
    eval_seqlens: tuple[int, ...] = ()  # nominal lengths scored on the test stream
    d_model: int = 64
    n_layers: int = 2
    short_conv: int = 0  # taps of the causal convolution before every operator; 0: none
    lr: float = 4e-3  # peak learning rate
    weight_decay: float = 0.1  # on matrices only
    warmup_steps: int = 50  # linear warm-up, then as the schedule says
    schedule: str = SCHEDULE  # see `mechbench.training.schedules`
    grad_clip: float = 1.0  # on the global norm
    batch_size: int = 64  # sequences per step, at full length
    curriculum: tuple[tuple[int, int], ...] = ()  # stages: (seqlen, sequences per step)
    budget_tokens: int = 0  # most training tokens; a larger one carries the cell on
    seed: int = 0
    dtype: str = "float32"  # float32, or bfloat16 (autocast; filters and FFT stay float32)
    device_type: str = "cpu"  # where training examples are drawn, with that device's generator
    loss_on: str = "both"  # "dense": every predictable position; "scored": only those; or "both"
    n_train: int = 0  # distinct training examples per stage; 0: every example is fresh
    n_validation: int = 512
    n_test: int = 2048
    validate_every: int = 25  # steps
    allow_noncausal: bool = False
    plugins: dict[str, str] = field(default_factory=dict)  # path: digest of those in use
    # Code beyond this package that decides the result: module or package to digest or version.
    sources: dict[str, str] = field(default_factory=dict)
    # Tokens the operator is built for, if that affects its weights or its function and it is scored
    # beyond the trained length; 0: those of the trained length.
    max_seqlen: int = 0
    protocol: int = PROTOCOL

    def __post_init__(self) -> None:
        """Convert every field to its type: equal settings are one cell, however they were given."""
        for name, value in settings({n: getattr(self, n) for n in _CHECKED}).items():
            object.__setattr__(self, name, value)
        for name in ("operator_options", "task_options", "plugins", "sources"):
            object.__setattr__(self, name, stored(getattr(self, name), name))
        stages = tuple(
            (setting("seqlen", seqlen), setting("batch_size", batch))
            for seqlen, batch in self.curriculum
        )
        object.__setattr__(self, "curriculum", stages)
        most = max((self.batch_size, *(batch for _, batch in self.curriculum)))
        if self.n_train and self.n_train < most:
            raise ConfigError(
                f"n_train is {self.n_train}: expected 0 (every example is fresh) or at least the "
                f"{most} sequences of a step"
            )
        if self.loss_on not in LOSSES:
            raise ConfigError(f"loss_on is {self.loss_on!r}: {nearest(self.loss_on, LOSSES)}")
        if self.protocol >= ANYTIME and self.schedule not in SCHEDULES:
            text = nearest(self.schedule, SCHEDULES)
            if self.schedule == "cosine":
                text = f"it would depend on the budget; choose from {', '.join(SCHEDULES)}"
            raise ConfigError(f"schedule is {self.schedule!r}: {text}")

    def varied(self, lr: float, seed: int) -> Config:
        """Return the same with another rate and seed, which are checked already.

        A suite has ten thousand such cells: nothing else of them is checked or copied again.
        """
        made = copy.copy(self)
        object.__setattr__(made, "lr", lr)
        object.__setattr__(made, "seed", seed)
        return made

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return json.loads(json.dumps(data))  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Config:
        """Rebuild a configuration that `to_dict` made.

        Raises:
            ConfigError: a field is unknown or missing.
        """
        try:
            names = [f.name for f in dataclasses.fields(cls) if f.name not in ADDED]
            absent = [name for name in names if name not in data]
            if absent:
                raise KeyError(*absent)
            stages = tuple((seqlen, batch) for seqlen, batch in data["curriculum"])
            return cls(**{**ADDED, **data, "curriculum": stages})
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise ConfigError(f"stored configuration does not fit this version: {error}") from error

    @property
    def tunes(self) -> bool:
        """Whether the cell is there to choose a learning rate, and not reported; by its seed."""
        return tunes(self.seed, self.protocol)

    @property
    def cell_id(self) -> str:
        """Hash of the whole configuration but the budget: 16 hexadecimal digits.

        A plugin counts by its content, not by the location of its file. Before protocol 3 the
        budget decided every step, so there it counts.
        """
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        data["plugins"] = sorted(self.plugins.values())
        for name, before in ADDED.items():  # older results keep their ids
            if data[name] == before:
                del data[name]
        if self.protocol >= ANYTIME:
            del data["budget_tokens"]
        return hashlib.sha256(canonical_json(data).encode()).hexdigest()[:16]


def tunes(seed: int, protocol: int) -> bool:
    """Return whether a cell with this seed only chooses a learning rate."""
    return protocol >= ANYTIME and seed >= TUNING_SEED


_CHECKED = tuple(
    f.name
    for f in dataclasses.fields(Config)
    if f.name not in ("operator_options", "task_options", "plugins", "sources", "curriculum")
)


def canonical_json(data: Any) -> str:
    """Return the canonical JSON text of `data`: sorted keys, no spaces.

    Raises:
        ConfigError: a number is NaN or infinite.
    """
    try:
        return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise ConfigError(f"a setting or option is NaN or infinite: {data}") from error


def default_batch_size(seqlen: int) -> int:
    """Return sequences per step: 64, or fewer, down to 32, where that exceeds 2^20 tokens.

    Recall is learnt from the number of different key-to-value maps per step, so the number of
    sequences stays high; 32 is the paper's batch size at length 131,072.
    """
    return min(64, max(32, 2**20 // seqlen))


def default_budget_tokens(batch_size: int, input_seqlen: int) -> int:
    """Return the default budget: 1,500 steps (training stops earlier once solved)."""
    return 1500 * batch_size * input_seqlen


def default_examples(seqlen: int) -> tuple[int, int]:
    """Return (n_validation, n_test): fewer for long sequences, but at least 128 and 256.

    Of 64, a model that is right in 98 percent gets all in one of three validations.
    """
    return min(512, max(128, 2**23 // seqlen)), min(2048, max(256, 2**25 // seqlen))
