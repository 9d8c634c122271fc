"""Digests of evaluation streams: what `streams.json` holds."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path
from typing import Any

import torch

from mechbench.data.streams import evaluation_batches
from mechbench.tasks.base import make_task

FILE = Path(__file__).with_name("streams.json")
N_EXAMPLES, SEED = 16, 0
TESTS = FILE.parents[1] / "tasks"  # a test of a task names its settings, GOLDEN


def settings() -> list[tuple[str, dict[str, Any]]]:
    """Return (task, parameters), from the literal GOLDEN of every tests/tasks/test_NAME.py."""
    found = []
    for path in sorted(TESTS.glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "GOLDEN":
                name = path.stem.removeprefix("test_").replace("_", "-")
                found += [(name, params) for params in ast.literal_eval(node.value)]
    return found


def digest(tensors: list[torch.Tensor]) -> str:
    """SHA-256 of the tensors as little-endian int64 or float32, one after the other."""
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(tensor.numpy().astype("<f4" if tensor.is_floating_point() else "<i8").tobytes())
    return sha.hexdigest()


def digests() -> dict[str, dict[str, str]]:
    found = {}
    for name, params in settings():
        task = make_task(name, **params)
        for split in ("validation", "test"):
            batches = evaluation_batches(task, N_EXAMPLES, SEED, split)
            found[f"{task!r} version {task.version} {split}"] = {
                field: digest([getattr(b, field) for b in batches])
                for field in ("inputs", "targets", "dense_targets", "also")
                if getattr(batches[0], field) is not None
            }
    return found
