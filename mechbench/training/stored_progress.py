"""What a checkpoint may say of a run's progress, field by field.

A checkpoint is a file like any other: what stands there may have other types, or numbers that no
run reaches. pydantic takes a while to load, so this module is imported where a checkpoint is read.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mechbench.record.config import Config
from mechbench.training.loop import Progress

Count = Annotated[int, Field(ge=0, lt=2**63)]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]


class _Stored(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class _Row(_Stored):
    """A row of metrics, as the loop makes it."""

    step: Count
    tokens: Count
    seqlen: Count
    loss: float
    train_accuracy: Share
    validation_accuracy: Share | None
    validation_dense_accuracy: Share | None
    tokens_per_s: Seconds
    train_s: Seconds
    branch: Annotated[int, Field(ge=0, le=1)] = 0  # whether these steps were undone


class _Progress(_Stored):
    """The fields of `Progress`, all of them."""

    step: Count
    tokens: Count
    stage: Count
    stage_tokens: Count
    halvings: Annotated[int, Field(ge=0, le=63)]
    streak: Annotated[int, Field(ge=0, le=2)]
    stop: Literal["", "solved", "budget", "diverged"]
    causal: bool
    excluded: Count
    train_s: Seconds
    pending: Annotated[list[Count], Field(min_length=3, max_length=3)]
    metrics: list[_Row]


def stored_progress(data: object, config: Config | None = None) -> Progress:
    """Return the progress that a checkpoint holds.

    Args:
        data: as read.
        config: of the run, where what it allows is to be checked too.

    Raises:
        ValueError: a field is missing, unknown, of another type or out of its range.
    """
    fields: dict[str, Any] = _Progress.model_validate(data).model_dump()
    progress = Progress(**fields)
    if progress.stage_tokens > progress.tokens or progress.step > progress.tokens:
        raise ValueError("its counts of steps and tokens contradict each other")
    undone = config is not None and config.schedule == "wsd"  # some steps, and then not counted
    if any(
        row["tokens"] > progress.tokens or (row["step"] > progress.step and not undone)
        for row in progress.metrics
    ):
        raise ValueError("its metrics go beyond its steps or tokens")
    if config is not None and progress.stage >= len(config.curriculum):
        raise ValueError(f"stage {progress.stage} of {len(config.curriculum)}")
    return progress
