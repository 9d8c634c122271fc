from __future__ import annotations

import torch
from torch import Tensor, nn

from mechbench.data.streams import evaluation_batches
from mechbench.plan.resolve import resolve, task_of
from mechbench.training.loop import Progress
from mechbench.training.outcome import empty_result, evaluation, note_non_finite


class Oracle(nn.Module):
    """Logits of the exact solver."""

    def __init__(self, task: object, right: bool) -> None:
        super().__init__()
        self.task, self.right = task, right

    def forward(self, tokens: Tensor) -> Tensor:
        answers = self.task.oracle(tokens).clamp_min(0)  # type: ignore[attr-defined]
        wrong = (answers + (not self.right)) % self.task.vocab_size  # type: ignore[attr-defined]
        return nn.functional.one_hot(wrong, self.task.vocab_size).float()  # type: ignore[attr-defined]


def test_nothing_known_is_an_error_with_its_provenance() -> None:
    config, device = resolve("hyena", "recall", seqlen=16, vocab_size=10, device="cpu")
    result = empty_result(config, task_of(config), device)
    assert (result["status"], result["cell_id"]) == ("error", config.cell_id)
    assert result["evaluations"] == []
    assert result["provenance"]["torch"] == torch.__version__


def test_the_oracle_scores_all_and_its_opposite_nothing() -> None:
    config, device = resolve("hyena", "recall", seqlen=16, vocab_size=10, device="cpu", n_test=32)
    task = task_of(config)
    batches = evaluation_batches(task, 32, 0, "test")
    for right in (True, False):
        score = evaluation(Oracle(task, right), task, batches, Progress(), config, device)
        assert (score["n"], score["accuracy"]) == (32, float(right))
        assert score["ci_low"] <= score["accuracy"] <= score["ci_high"]
        assert score["required_context"][str(task.input_seqlen)] == 1.0


def test_logits_that_are_not_finite_are_no_answers_and_counted() -> None:
    config, device = resolve("hyena", "recall", seqlen=16, vocab_size=10, device="cpu", n_test=32)
    task = task_of(config)

    class Nan(Oracle):
        def forward(self, tokens: Tensor) -> Tensor:
            return super().forward(tokens) / 0

    batches = evaluation_batches(task, 32, 0, "test")
    score = evaluation(Nan(task, True), task, batches, Progress(), config, device)
    assert (score["non_finite"], score["correct"], score["n"]) == (32, 0, 32)


def test_not_finite_at_the_trained_length_is_a_run_that_diverged() -> None:
    config, device = resolve(
        "hyena", "recall", seqlen=16, vocab_size=10, device="cpu", eval_seqlens=(32, 64)
    )
    for bad, status in (((32, 64), "ok"), ((16, 64), "diverged"), ((), "ok")):
        result = empty_result(config, task_of(config), device) | {"status": "ok"}
        result["evaluations"] = [
            {"seqlen": n} | ({"non_finite": 3} if n in bad else {}) for n in (16, 32, 64)
        ]
        note_non_finite(result, config)
        assert result["status"] == status
        said = f"logits are not finite at seqlen {', '.join(map(str, bad))}" if bad else None
        assert result["reason"] == said


def test_a_loss_that_was_not_finite_stays_the_reason() -> None:
    config, device = resolve("hyena", "recall", seqlen=16, vocab_size=10, device="cpu")
    told = "the training loss is not finite"
    result = empty_result(config, task_of(config), device) | {"status": "diverged", "reason": told}
    result["evaluations"] = [{"seqlen": 16, "non_finite": 3}]
    note_non_finite(result, config)
    assert (result["status"], result["reason"]) == ("diverged", told)
