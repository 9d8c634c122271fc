from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from mechbench.tasks.base import IGNORE, Batch
from mechbench.training import evaluation as module
from mechbench.training.evaluation import (
    Score,
    autocast,
    count_non_finite,
    count_right,
    counts,
    evaluate,
)

V = 5


class Echo(nn.Module):
    """Answers every token with itself; runs out of memory above `fits` sequences."""

    def __init__(self, fits: int = 1 << 30, error: str = "CUDA out of memory") -> None:
        super().__init__()
        self.fits, self.error = fits, error
        self.sizes: list[int] = []
        self.modes: set[bool] = set()
        self.weight = nn.Parameter(torch.eye(V))

    def forward(self, tokens: Tensor) -> Tensor:
        self.modes.add(self.training)
        if len(tokens) > self.fits:
            raise torch.cuda.OutOfMemoryError(self.error)
        self.sizes.append(len(tokens))
        return nn.functional.one_hot(tokens, V).float() @ self.weight


def batches() -> list[Batch]:
    inputs = torch.tensor([[1, 2, 3], [4, 1, 1], [0, 0, 2], [3, 3, 3], [2, 2, 4]])
    targets = torch.full_like(inputs, IGNORE)
    targets[:, -1] = torch.tensor([3, 1, 0, 3, 1])  # right: rows 0, 1, 3
    targets[4, -1] = IGNORE
    dense = targets.clone()
    dense[:, 0] = torch.tensor([1, 4, 1, IGNORE, 2])  # right: rows 0, 1, 4
    whole = inputs, targets, dense
    return [Batch(*(t[:3] for t in whole)), Batch(*(t[3:] for t in whole))]


EXPECTED = Score(correct=3, n=4, dense_correct=6, dense_n=8)


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 100])
def test_counts_are_those_made_by_hand(micro_batch: int, device: str) -> None:
    score = evaluate(Echo().to(device), batches(), micro_batch, device, "float32")
    assert score == EXPECTED
    assert (score.accuracy, score.dense_accuracy) == (0.75, 0.75)


def test_every_right_answer_counts(device: str) -> None:
    """Row 2 is right already; of rows 3 and 4 one gets its answer, a row not scored does not."""
    also = torch.full((5, 3, 2), IGNORE)
    also[1, 2, 1] = 1
    also[3, 0, 0], also[4, 2, 0] = 3, 4  # not targets there
    wrong = [
        replace(batch, targets=torch.where(batch.targets == 1, 2, batch.targets), also=part)
        for batch, part in zip(batches(), (also[:3], also[3:]), strict=True)
    ]
    without = evaluate(
        Echo().to(device), [replace(batch, also=None) for batch in wrong], 2, device, "float32"
    )
    assert (without.correct, without.n) == (2, 4)
    assert evaluate(Echo().to(device), wrong, 2, device, "float32") == EXPECTED


def test_counts_are_the_fields_of_the_score_on_the_device(device: str) -> None:
    found = counts(Echo().to(device), batches(), 2, device, "float32")
    assert found.device.type == device.partition(":")[0]
    assert Score(*found.tolist()) == EXPECTED


def test_nothing_scored_is_no_division_by_zero() -> None:
    score = evaluate(Echo(), [], 4, "cpu", "float32")
    assert score == Score(0, 0, 0, 0)
    assert (score.accuracy, score.dense_accuracy) == (0.0, 0.0)


def test_ignored_positions_are_neither_right_nor_scored() -> None:
    logits = torch.eye(3)[None]
    assert count_right(logits, torch.tensor([[0, 2, IGNORE]])).tolist() == [1, 2]
    assert count_right(logits, torch.full((1, 3), IGNORE)).tolist() == [0, 0]


def test_micro_batch_is_halved_and_the_score_is_the_same() -> None:
    model = Echo(fits=1)
    assert evaluate(model, batches(), 5, "cpu", "float32") == EXPECTED
    assert model.sizes == [1] * 5
    model = Echo(fits=2)
    assert evaluate(model, batches(), 4, "cpu", "float32") == EXPECTED
    assert model.sizes == [2, 1, 2]


def test_running_out_of_memory_between_two_counts_counts_nothing_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []

    counted = module._count_right

    def count(answers: Tensor, finite: Tensor, targets: Tensor, also: Tensor | None) -> Tensor:
        calls.append(len(answers))
        if len(calls) == 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return counted(answers, finite, targets, also)

    monkeypatch.setattr(module, "_count_right", count)
    assert evaluate(Echo(), batches(), 4, "cpu", "float32") == EXPECTED


def test_single_sequence_that_does_not_fit_raises() -> None:
    with pytest.raises(torch.cuda.OutOfMemoryError, match="this one"):
        evaluate(Echo(fits=0, error="this one"), batches(), 4, "cpu", "float32")


def test_other_errors_are_not_retried() -> None:
    class Broken(Echo):
        def forward(self, tokens: Tensor) -> Tensor:
            self.sizes.append(len(tokens))
            raise RuntimeError("shapes do not match")

    model = Broken()
    with pytest.raises(RuntimeError, match="shapes"):
        evaluate(model, batches(), 4, "cpu", "float32")
    assert len(model.sizes) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_not_finite_answer_nothing_and_are_counted(value: float) -> None:
    class Broken(Echo):
        """Spoils what it says at a token 2, and at the first position."""

        def forward(self, tokens: Tensor) -> Tensor:
            bad = tokens == 2
            bad[:, 0] = True
            return torch.where(bad[..., None], value, super().forward(tokens))

    score = evaluate(Broken(), batches(), 2, "cpu", "float32")
    # In row 2, whose last token is a 2, class 0 is the answer, and the argmax of NaN.
    assert (score.correct, score.n, score.non_finite) == (EXPECTED.correct, 4, 1)
    assert evaluate(Echo(), batches(), 2, "cpu", "float32").non_finite == 0


def test_one_logit_among_many_is_enough() -> None:
    logits = torch.eye(3)[None].clone()
    logits[0, 1, 0] = float("nan")
    targets = torch.tensor([[0, 1, IGNORE]])
    assert count_right(logits, targets).tolist() == [1, 2]
    assert count_non_finite(logits, targets).tolist() == [1]
    logits[0, 1, 0], logits[0, 2, 0] = 0.0, float("nan")  # nobody asks there
    assert count_non_finite(logits, targets).tolist() == [0]


@pytest.mark.parametrize("training", [True, False])
def test_model_is_scored_in_evaluation_mode_and_given_back_as_it_was(training: bool) -> None:
    model = Echo().train(training)
    evaluate(model, batches(), 2, "cpu", "float32")
    assert model.modes == {False}
    assert model.training is training


def test_scoring_makes_no_gradients() -> None:
    class Watched(Echo):
        def forward(self, tokens: Tensor) -> Tensor:
            logits = super().forward(tokens)
            assert not logits.requires_grad
            return logits

    evaluate(Watched(), batches(), 2, "cpu", "float32")


@pytest.mark.parametrize(("dtype", "inside"), [("float32", "float32"), ("bfloat16", "bfloat16")])
def test_autocast_is_on_for_bfloat16_alone(dtype: str, inside: str, device: str) -> None:
    x = torch.ones(2, 2, device=device)
    with autocast(f"{device}:0" if device == "cuda" else device, dtype):
        assert str((x @ x).dtype) == f"torch.{inside}"


def test_numbers_are_right_within_a_tenth() -> None:
    targets = torch.tensor([[1.0, -0.5, IGNORE, 2.0]])
    predicted = torch.tensor([[1.09, -0.61, IGNORE, float("nan")]])[..., None]
    assert count_right(predicted, targets).tolist() == [1, 3]
