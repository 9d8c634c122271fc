"""Accuracy of a model on a fixed set of examples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mechbench.tasks.base import IGNORE, Batch, matches
from mechbench.training.memory import is_out_of_memory


@dataclass(frozen=True)
class Score:
    """Counts over scored positions: the headline's, and every predictable one."""

    correct: int
    n: int
    dense_correct: int
    dense_n: int
    non_finite: int = 0  # examples with NaN or infinity among the headline's logits

    @property
    def accuracy(self) -> float:
        """Headline accuracy."""
        return self.correct / max(1, self.n)

    @property
    def dense_accuracy(self) -> float:
        """Accuracy over every predictable position."""
        return self.dense_correct / max(1, self.dense_n)


def autocast(device: str, dtype: str) -> torch.autocast:
    """Return the autocast context of a run; a no-op for float32."""
    return torch.autocast(
        device.partition(":")[0], dtype=torch.bfloat16, enabled=dtype == "bfloat16"
    )


def count_right(logits: Tensor, targets: Tensor) -> Tensor:
    """Return (2,) int64: right answers and scored positions; no synchronisation.

    Of several right answers only the target counts, which is what training aims at.
    Logits that are not finite answer nothing: NaN has an argmax, class 0, but no choice was made.
    """
    return _count_right(*_answers(logits, targets), targets, None)


def count_non_finite(logits: Tensor, targets: Tensor) -> Tensor:
    """Return (1,) int64: examples with NaN or infinity at a scored position."""
    return _count_non_finite(_answers(logits, targets)[1], targets)


def _answers(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the answers (B, L) that logits (B, L, V) give, and where all V are finite."""
    numbers = targets.is_floating_point()
    answers = logits[..., 0].float() if numbers else logits.argmax(-1)
    return answers, (logits * 0).sum(-1) == 0  # 0 times NaN or infinity is NaN


def _count_right(answers: Tensor, finite: Tensor, targets: Tensor, also: Tensor | None) -> Tensor:
    scored = targets != IGNORE
    # -100 is never an argmax, but may be a number.
    right = matches(answers, targets, also) & finite & scored
    return torch.stack([right.sum(), scored.sum()])


def _count_non_finite(finite: Tensor, targets: Tensor) -> Tensor:
    return (~finite & (targets != IGNORE)).any(-1).sum()[None]


def evaluate(
    model: nn.Module, batches: Iterable[Batch], micro_batch: int, device: str, dtype: str
) -> Score:
    """Score `model` on `batches`; the micro-batch is halved when memory runs out.

    Raises:
        torch.OutOfMemoryError: a single sequence does not fit.
    """
    return Score(*counts(model, batches, micro_batch, device, dtype).tolist())


@torch.no_grad()
def counts(
    model: nn.Module, batches: Iterable[Batch], micro_batch: int, device: str, dtype: str
) -> Tensor:
    """Return the fields of the `Score`, (5,) int64, for which a GPU may still be at work.

    Raises:
        torch.OutOfMemoryError: a single sequence does not fit.
    """
    was_training = model.training
    model.eval()
    total = torch.zeros(5, dtype=torch.int64, device=device)
    for batch in batches:
        start = 0
        while start < len(batch.inputs):
            rows = slice(start, start + micro_batch)
            try:
                # All first: a copy to a GPU waits for what was launched before.
                asked = batch.map(lambda tensor: tensor[rows].to(device))  # noqa: B023
                with autocast(device, dtype):
                    logits = model(asked.inputs)
                answers, finite = _answers(logits, asked.targets)
                right = [
                    _count_right(answers, finite, targets, asked.also)
                    for targets in (asked.targets, asked.dense_targets)
                ]
                total += torch.cat([*right, _count_non_finite(finite, asked.targets)])
                start += micro_batch
                continue
            except Exception as error:
                if not is_out_of_memory(error) or micro_batch == 1:
                    raise
            micro_batch //= 2
            if device.startswith("cuda"):
                torch.cuda.empty_cache()
    model.train(was_training)
    return total
