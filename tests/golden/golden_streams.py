"""Digests of evaluation streams: what `streams.json` holds."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from mechbench.tasks.base import make_task
from mechbench.tasks.streams import evaluation_batches

FILE = Path(__file__).with_name("streams.json")
N_EXAMPLES, SEED = 16, 0
SETTINGS = (
    ("recall", {"vocab_size": 20, "seqlen": 64}),
    ("recall", {"vocab_size": 30, "seqlen": 256, "min_distance": 200}),
    ("induction", {"vocab_size": 20, "seqlen": 64}),
    ("induction", {"vocab_size": 30, "seqlen": 256, "induction_len": 3, "n_triggers": 4}),
)


def digest(tensors: list[torch.Tensor]) -> str:
    """SHA-256 of the tensors' numbers as little-endian int64, one after the other."""
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(tensor.numpy().astype("<i8").tobytes())
    return sha.hexdigest()


def digests() -> dict[str, dict[str, str]]:
    found = {}
    for name, params in SETTINGS:
        task = make_task(name, **params)
        for split in ("validation", "test"):
            batches = evaluation_batches(task, N_EXAMPLES, SEED, split)
            found[f"{task!r} version {task.version} {split}"] = {
                field: digest([getattr(b, field) for b in batches])
                for field in ("inputs", "targets", "dense_targets")
            }
    return found
