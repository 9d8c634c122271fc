"""Length curriculum: the stages of growing length that every operator is trained through. No torch.

Short sequences are the cheap way to many different examples: at equal tokens, the number of
different maps a step decides how fast recall is learnt, not the length. So training starts at the
task's `easiest_seqlen` and grows fourfold a stage once the training accuracy of a stage reaches
0.95 (training examples are always fresh), or when it has used its share of the budget.
"""

from __future__ import annotations

import math

from mechbench.errors import ConfigError
from mechbench.record.config import default_batch_size
from mechbench.tasks.base import Task, as_task

GROWTH = 4
ADVANCE = 0.95  # training accuracy since the last row of metrics
_STAGE_TOKENS = 1 << 19  # most tokens a step, where a curriculum bought the maps already


def stages(task: Task, curriculum: str, batch_size: int | None) -> tuple[tuple[int, int], ...]:
    """Return ((seqlen, sequences a step), ...), the last one at the task's own length.

    Args:
        task: the task at full length.
        curriculum: "auto", or "none" for full length from the first step.
        batch_size: sequences a step of every stage; None takes the defaults.
    """
    first = task.easiest_seqlen
    if curriculum == "none" or first >= task.seqlen:
        return ((task.seqlen, batch_size or default_batch_size(task.seqlen)),)
    lengths = []
    while first < task.seqlen:
        lengths.append(first)
        first *= GROWTH
    return tuple(
        (length, batch_size or min(64, max(1, _STAGE_TOKENS // length)))
        for length in [*lengths, task.seqlen]
    )


def check_budget(task: Task, curriculum: tuple[tuple[int, int], ...], budget_tokens: int) -> None:
    """Check that the budget holds a step of every stage: training takes whole steps only.

    Raises:
        ConfigError: it does not; the smallest that does is named.
    """
    tokens = {
        batch_size * stage_task(task, seqlen).input_seqlen: (seqlen, batch_size)
        for seqlen, batch_size in curriculum
    }
    need = max(tokens)
    if budget_tokens < need:
        seqlen, batch_size = tokens[need]
        raise ConfigError(
            f"budget_tokens is {budget_tokens}: less than one step, {batch_size} sequences at "
            f"seqlen {seqlen}: expected at least {need}"
        )


def stage_task(task: Task, seqlen: int) -> Task:
    """Return `task` at a shorter length; parameters that are lengths themselves shrink with it."""
    if seqlen == task.seqlen:
        return task
    return as_task(task.easier(seqlen), f"task {type(task).__name__}")


def stage_lr(curriculum: tuple[tuple[int, int], ...], stage: int) -> float:
    """Return the factor on the learning rate in `stage`: the root of its share of sequences.

    Long stages have few sequences a step, so their gradients are noisier by that root; at the full
    rate recall hovers below its final accuracy. Square-root scaling: Malladi et al. 2022
    (arXiv:2205.10287), section 4.
    """
    most = max(batch_size for _, batch_size in curriculum)
    return math.sqrt(curriculum[stage][1] / most)


def stage_budget(budget_tokens: int, n_stages: int) -> int:
    """Return the tokens that each stage but the last may use: half of the budget among them."""
    return budget_tokens // (2 * max(1, n_stages - 1))
