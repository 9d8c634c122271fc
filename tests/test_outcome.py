from __future__ import annotations

import torch
from torch import Tensor, nn

from mechbench.outcome import empty_result, evaluation
from mechbench.resolve import resolve, task_of
from mechbench.tasks.streams import evaluation_batches
from mechbench.train import Progress


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
