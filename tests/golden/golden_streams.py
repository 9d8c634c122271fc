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
    ("arithmetic", {"vocab_size": 11, "seqlen": 9}),
    ("arithmetic", {"vocab_size": 3, "seqlen": 65}),
    ("compression", {"vocab_size": 16, "seqlen": 32}),
    ("compression", {"vocab_size": 128, "seqlen": 256}),
    ("counting", {"vocab_size": 20, "seqlen": 64}),
    ("counting", {"vocab_size": 40, "seqlen": 1024}),
    ("fuzzy-recall", {"vocab_size": 16, "seqlen": 128}),
    ("fuzzy-recall", {"vocab_size": 128, "seqlen": 256, "key_len": 2, "value_len": 4}),
    ("icl-functions", {"vocab_size": 5, "seqlen": 32}),
    ("icl-functions", {"vocab_size": 20, "seqlen": 82}),
    ("majority", {"vocab_size": 20, "seqlen": 64}),
    ("majority", {"vocab_size": 40, "seqlen": 1024, "lead": 0.0}),
    ("memorization", {"vocab_size": 256, "seqlen": 32}),
    ("memorization", {"vocab_size": 1025, "seqlen": 32, "map_seed": 1}),
    ("mqar", {"vocab_size": 256, "seqlen": 64}),
    ("mqar", {"vocab_size": 8192, "seqlen": 512, "n_pairs": 64, "random_filler": True}),
    ("multi-key-recall", {"vocab_size": 10, "seqlen": 96}),
    ("multi-key-recall", {"vocab_size": 30, "seqlen": 256, "key_len": 3}),
    ("noisy-recall", {"vocab_size": 32, "seqlen": 128}),
    ("noisy-recall", {"vocab_size": 80, "seqlen": 256, "noise_share": 0.6}),
    ("selective-copying", {"vocab_size": 16, "seqlen": 256}),
    ("selective-copying", {"vocab_size": 64, "seqlen": 512, "n_copied": 96}),
)


def digest(tensors: list[torch.Tensor]) -> str:
    """SHA-256 of the tensors as little-endian int64 or float32, one after the other."""
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(tensor.numpy().astype("<f4" if tensor.is_floating_point() else "<i8").tobytes())
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
