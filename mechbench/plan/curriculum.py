"""Length curriculum: the stages of growing length that every operator is trained through. No torch.

Short sequences are the cheap way to many different examples: at equal tokens, the number of
different maps a step decides how fast recall is learnt, not the length. So training starts at the
task's `easiest_seqlen` and grows fourfold a stage once the training accuracy of a stage reaches
0.95 (training examples are always fresh), or after 1,000 steps or 8 M tokens. Nothing of that
depends on the budget, so that a run is a part of every longer one.
"""

from __future__ import annotations

import math

from mechbench.errors import ConfigError
from mechbench.record.config import default_batch_size
from mechbench.tasks.base import Task, as_task

GROWTH = 4
ADVANCE = 0.95  # training accuracy since the last row of metrics
# Sequences a step, where a curriculum bought the maps already: as many as are so many tokens, but a
# few where these are no more than so many (docs/protocol.md, tokens a step).
_SEQUENCES = 64
_STEP_TOKENS = 1 << 17
_FEW = 4
_MOST_STEP_TOKENS = 1 << 19
# Most of a stage but the last, to the next row of metrics; at length 128 the two are one. Under
# protocol 2 these stages shared half of the budget: 5 to 10 M tokens each with the 20 to 80 M of
# the boards; with a default budget, 1,500 steps' worth at full length, as many as 750 steps there.
# In steps, a default budget keeps most of itself for full length, however short that is; in tokens,
# long stages do not cost what the last one is there for. What is not learnt then goes on at the
# next length, where it is asked for.
STAGE_STEPS = 1000
STAGE_TOKENS = 1 << 23


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
        (length, batch_size or step_sequences(length)) for length in [*lengths, task.seqlen]
    )


def step_sequences(seqlen: int) -> int:
    """Return how many sequences a step has by default in a stage of a curriculum."""
    few = min(_FEW, max(1, _MOST_STEP_TOKENS // seqlen))
    return min(_SEQUENCES, max(few, _STEP_TOKENS // seqlen))


def stage_costs(task: Task, curriculum: tuple[tuple[int, int], ...]) -> list[int]:
    """Return the tokens of a step in each stage."""
    return [size * stage_task(task, seqlen).input_seqlen for seqlen, size in curriculum]


def most_tokens(step_tokens: int) -> int:
    """Return the most tokens of a stage with so many a step, but for the rest of its last row."""
    return min(STAGE_TOKENS, STAGE_STEPS * step_tokens)


def tokens_before_full(
    task: Task, curriculum: tuple[tuple[int, int], ...], validate_every: int
) -> tuple[int, int]:
    """Return the fewest and the most tokens that are spent before the first step at full length.

    Stages end where a row of metrics falls, every `validate_every` steps: the fewest are one row a
    stage, the most as many rows as hold `most_tokens`.
    """
    early = stage_costs(task, curriculum)[:-1]
    rows = [cost * validate_every for cost in early]
    most = [row * -(-most_tokens(cost) // row) for row, cost in zip(rows, early, strict=True)]
    return sum(rows), sum(most)


def check_budget(
    task: Task, curriculum: tuple[tuple[int, int], ...], budget_tokens: int, validate_every: int
) -> None:
    """Check that the budget can reach full length, and holds a step there.

    Raises:
        ConfigError: it cannot; the smallest that can is named.
    """
    if budget_tokens >= least_budget(task, curriculum, validate_every):
        return
    costs = stage_costs(task, curriculum)
    need = max(costs)
    if budget_tokens < need:
        seqlen, batch_size = curriculum[costs.index(need)]
        raise ConfigError(
            f"budget_tokens is {budget_tokens}: less than one step, {batch_size} sequences at "
            f"seqlen {seqlen}: expected at least {need}"
        )
    need = least_budget(task, curriculum, validate_every)
    lengths = ", ".join(str(seqlen) for seqlen, _ in curriculum[:-1])
    raise ConfigError(
        f"budget_tokens is {budget_tokens}: the curriculum goes through seqlen {lengths} first "
        f"and cannot reach {task.seqlen}: expected at least {need}, or curriculum 'none'"
    )


def least_budget(task: Task, curriculum: tuple[tuple[int, int], ...], validate_every: int) -> int:
    """Return the smallest budget that can reach full length, and holds a step there."""
    costs = stage_costs(task, curriculum)
    fewest = tokens_before_full(task, curriculum, validate_every)[0]
    return max(*costs, fewest + costs[-1])


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
