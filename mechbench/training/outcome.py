"""The parts of a cell's result: the empty one to begin with, and the score at each length."""

from __future__ import annotations

from typing import Any

from torch import nn

from mechbench.data.baselines import required_context, shortcut_accuracies
from mechbench.record.config import Config
from mechbench.record.provenance import provenance
from mechbench.record.results import SCHEMA_VERSION, wilson_interval
from mechbench.tasks.base import Batch, Task
from mechbench.training.evaluation import Score, counts
from mechbench.training.loop import Progress


def evaluation(
    model: nn.Module,
    task: Task,
    batches: list[Batch],
    progress: Progress,
    config: Config,
    device: str,
) -> dict[str, Any]:
    """Score the model on a test set, beside what the task gives away without being solved."""
    micro_batch = progress.micro_batch(config, config.n_test, task.input_seqlen)
    counted = counts(model, batches, micro_batch, device, config.dtype)
    whole = Batch.joined(batches)
    # On the CPU, while a GPU still counts.
    shortcuts, context = shortcut_accuracies(task, whole), required_context(task, whole)
    score = Score(*counted.tolist())
    low, high = wilson_interval(score.correct, score.n)
    row = {
        "seqlen": task.seqlen,
        "n": score.n,
        "correct": score.correct,
        "accuracy": score.accuracy,
        "ci_low": low,
        "ci_high": high,
        "dense_n": score.dense_n,
        "dense_accuracy": score.dense_accuracy,
        "shortcuts": shortcuts,
        "required_context": {str(w): a for w, a in context.items()},
    }
    if score.non_finite:
        row["non_finite"] = score.non_finite
    return row


def without_answer(status: str) -> dict[str, Any]:
    """Return the fields of a result that ended otherwise than "ok": whatever it was, not solved."""
    return {"status": status, "stop": status, "solved": False}


def note_non_finite(result: dict[str, Any], config: Config) -> None:
    """Say in `result` where logits are not finite; at the trained length the run has diverged.

    What is beside that length stays a row with its count in "non_finite", which is no measurement.
    """
    bad = {
        row["seqlen"]: row["non_finite"] for row in result["evaluations"] if row.get("non_finite")
    }
    if not bad or result["status"] not in ("ok", "diverged"):
        return
    if config.seqlen in bad:
        result |= without_answer("diverged")
    if result["reason"] is None:
        lengths = ", ".join(map(str, sorted(bad)))
        result["reason"] = f"logits are not finite at seqlen {lengths}"


def empty_result(config: Config, task: Task, device: str) -> dict[str, Any]:
    """Return the result of a cell of which nothing is known yet: an error."""
    return {
        "schema_version": SCHEMA_VERSION,
        "cell_id": config.cell_id,
        "status": "error",
        "reason": None,
        "config": config.to_dict(),
        "chance": task.chance,
        "train_is_test": bool(task.train_is_test),
        "evaluations": [],
        "solved": False,
        "outcome": None,
        "causal": None,
        "stop": None,
        "validation_accuracy": None,
        "parameters": None,
        "steps": 0,
        "train_tokens": 0,
        "excluded_examples": 0,
        "micro_batch_size": None,
        "flops_per_token": None,
        "tokens_per_s": None,
        "peak_memory_mib": None,
        "seconds": {"train": 0.0, "evaluate": 0.0, "total": 0.0},
        "fft_conv_backend": None,
        "kernels": {},
        "provenance": provenance(device),
    }
