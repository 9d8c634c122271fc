"""Results and rows of a board, made up."""

from __future__ import annotations

from typing import Any

from mechbench.record.config import Config
from mechbench.record.outcome import CellOutcome
from mechbench.record.results import wilson_interval
from mechbench.report.rows import Row, rows_of


def _evaluation(seqlen: int, accuracy: float, n: int) -> dict[str, Any]:
    correct = round(accuracy * n)
    low, high = wilson_interval(correct, n)
    return {
        "seqlen": seqlen, "n": n, "correct": correct, "accuracy": correct / n, "ci_low": low,
        "ci_high": high, "dense_n": n, "dense_accuracy": accuracy,
        "shortcuts": {"last value": 0.12}, "required_context": {"16": 0.5, str(seqlen + 2): 0.98},
    }  # fmt: skip


def made_result(
    accuracies: dict[int, float] | None = None, status: str = "ok", **changes: Any
) -> dict[str, Any]:
    """Return a made-up result without a fault, scored at the lengths of `accuracies`."""
    settings: dict[str, Any] = {
        "operator": "hyena", "task": "recall", "seqlen": 64, "budget_tokens": 10_000,
        "n_test": 1000, "task_options": {"min_distance": 0}, **changes,
    }  # fmt: skip
    accuracies = {settings["seqlen"]: 0.9} if accuracies is None else accuracies
    settings["eval_seqlens"] = tuple(sorted({settings["seqlen"], *accuracies}))
    config = Config(**settings)
    return {
        "schema_version": 1, "cell_id": config.cell_id, "status": status,
        "reason": None if status == "ok" else "it went | wrong", "config": config.to_dict(),
        "chance": 0.1, "solved": False, "causal": True, "stop": "budget",
        "evaluations": [_evaluation(n, a, 1000) for n, a in sorted(accuracies.items())],
        "validation_accuracy": 0.5, "parameters": 1234, "steps": 10, "train_tokens": 9000,
        "excluded_examples": 0, "micro_batch_size": 8, "flops_per_token": 1.5e6,
        "tokens_per_s": 2e5, "peak_memory_mib": 64.5, "fft_conv_backend": None,
        "seconds": {"train": 1.5, "evaluate": 0.1, "total": 0.1 + 0.2},
        "provenance": {
            "mechbench": "0.1.0", "torch": "2.11", "python": "3.12", "platform": "Linux x86_64",
            "device": "CPU, 1 threads", "git_commit": None, "date": "2026-01-02T03:04:05Z",
            "command": "mechbench sweep x.toml",
        },
    }  # fmt: skip


def seeds_of(operator: str, task: str, tokens: tuple[int, ...], **settings: Any) -> list[Row]:
    """Return the rows of an operator's seeds at a task.

    Args:
        operator: its name.
        task: its name.
        tokens: to solve it, of each seed; negative: given up then.
        settings: as `made_result` takes them.
    """
    found: list[Row] = []
    for seed, n in enumerate(tokens):
        kind, trend = ("solved", None) if n > 0 else ("censored", "rising")
        made = {"task_options": {"min_distance": 0} if task == "recall" else {}, **settings}
        data = made_result(operator=operator, task=task, seed=seed, **made)
        data |= {"outcome": CellOutcome(kind, abs(n), trend=trend).to_dict(), "solved": n > 0}
        found += rows_of(data | {"train_tokens": abs(n)})
    return found


def board_rows() -> list[Row]:
    """Return two operators, lengths, vocabularies and seeds; one diverged, one was not run."""
    found: list[Row] = []
    for operator, base in (("hyena", 0.9), ("attention", 0.7)):
        for seqlen in (64, 128):
            for vocab_size in (10, 30):
                for seed in (0, 1):
                    status = "ok"
                    if (operator, seqlen, seed) == ("attention", 128, 1):
                        status = "diverged" if vocab_size == 10 else "not-run"
                    data = made_result(
                        {seqlen: base + 0.01 * seed} if status == "ok" else {}, status,
                        operator=operator, seqlen=seqlen, vocab_size=vocab_size, seed=seed,
                    )  # fmt: skip
                    if status == "not-run":
                        data["provenance"] = {}
                    found += rows_of(data)
    return found
