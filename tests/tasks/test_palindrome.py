from __future__ import annotations

import torch

from mechbench.tasks.base import UNKNOWN
from mechbench.tasks.palindrome import Palindrome

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 29, "seqlen": 64},
    {"vocab_size": 40, "seqlen": 256, "min_seqlen": 20},
)


def test_the_example_of_the_docstring() -> None:
    inputs = torch.tensor([[6, 4, 1, 2, 1, 7, 1, 2, 1]])
    task = Palindrome(8, 4)
    assert task.oracle(inputs)[0].tolist() == [UNKNOWN] * 5 + [1, 2, 1, 4]
    assert " ".join(map(task.describe, inputs[0].tolist())).startswith("$ d a b a |")


def test_how_far_back_the_answers_lie() -> None:
    task = Palindrome(20, 4)
    inputs = task.sample(1, torch.Generator().manual_seed(0)).inputs
    answers = task.oracle(inputs)[0]
    distances = []
    for t in range(5, 9):
        windows = [inputs[:, t - back : t + 1] for back in range(t + 1)]
        told = [task.oracle(window)[0, -1].item() == answers[t] for window in windows]
        distances.append(told.index(True))
    assert distances == [1, 3, 5, 7]
