"""Lazy rules that know nothing of a task, against the best shortcut that the task lists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from mechbench.catalogue.registry import TASKS
from mechbench.tasks.base import IGNORE, Batch, Task, make_task

EXAMPLES = 800  # to learn labels from, and as many to score
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "arithmetic": [{}, {"vocab_size": 4, "seqlen": 13}],
    "compression": [{}, {"vocab_size": 4, "seqlen": 12}],
    "counting": [{}, {"vocab_size": 8, "seqlen": 16}],
    "fuzzy-recall": [{"seqlen": 80}, {"vocab_size": 32, "seqlen": 64, "key_len": 2}],
    "induction": [{}, {"vocab_size": 8, "seqlen": 40, "induction_len": 4, "n_triggers": 2}],
    "majority": [{}, {"vocab_size": 6, "seqlen": 40}],
    "memorization": [{"vocab_size": 32}, {"vocab_size": 9, "seqlen": 8}],
    "mqar": [
        {"vocab_size": 64, "seqlen": 40},
        {"vocab_size": 64, "seqlen": 96, "random_filler": True, "power": 1.0},
    ],
    "multi-key-recall": [{}, {"seqlen": 96, "key_len": 3}],
    "noisy-recall": [{"seqlen": 80}, {"vocab_size": 20, "seqlen": 40, "noise_share": 0.6}],
    "recall": [{}, {"vocab_size": 12, "seqlen": 40, "min_distance": 30}],
    "selective-copying": [{"seqlen": 64}, {"vocab_size": 6, "seqlen": 24, "n_copied": 4}],
    "copy": [{"seqlen": 32}, {"vocab_size": 12, "seqlen": 24, "min_seqlen": 12}],
    "palindrome": [{"seqlen": 32}, {"vocab_size": 12, "seqlen": 24, "min_seqlen": 12}],
    "ngram-lookup": [{}, {"vocab_size": 12, "seqlen": 30, "n": 3, "n_answer": 3}],
    "mqar-overwrite": [
        {"vocab_size": 64, "seqlen": 40},
        {
            "vocab_size": 64,
            "seqlen": 96,
            "n_pairs": 8,
            "n_updates": 3,
            "random_filler": True,
            "power": 1.0,
        },
    ],
    "mqar-compositional": [
        {"vocab_size": 64, "seqlen": 40},
        {"vocab_size": 64, "seqlen": 96, "grid": 3, "random_filler": True, "power": 1.0},
    ],
    "n-back": [
        {"seqlen": 68},
        {"vocab_size": 16, "seqlen": 64, "n": 3},
        {"vocab_size": 16, "seqlen": 64, "n": 1},
    ],
    "set-intersection": [
        {"seqlen": 40},
        {"vocab_size": 24, "seqlen": 48},
        {"vocab_size": 24, "seqlen": 48, "short_first": False},
    ],
    "needle": [
        {"seqlen": 40},
        {"vocab_size": 24, "seqlen": 48, "n_needles": 8, "n_queries": 8},
    ],
    "variable-chains": [{"seqlen": 40}, {"vocab_size": 24, "seqlen": 48, "hops": 2, "n_chains": 3}],
    "group-word": [{"seqlen": 32}, {"group": "S4", "seqlen": 24, "moves": "swaps"}],
    "parity": [{}, {"seqlen": 20, "min_seqlen": 3}],
    "even-pairs": [{}, {"seqlen": 20, "min_seqlen": 3}],
    "cycle-navigation": [{}, {"seqlen": 20, "min_seqlen": 8}],
    "modular-arithmetic": [
        {},
        {"seqlen": 20, "min_seqlen": 9},
        {"brackets": True},
        {"seqlen": 20, "brackets": True, "depth": 1},
    ],
    "stack": [{"seqlen": 64}, {"vocab_size": 12, "seqlen": 32, "n_stacks": 2}],
    "flip-flop": [{"seqlen": 64}, {"seqlen": 32, "p_ignore": 0.5}],
    "k-hop": [{"seqlen": 64}, {"vocab_size": 8, "seqlen": 30, "n_symbols": 3, "max_hops": 3}],
    "sort": [{"seqlen": 20}, {"vocab_size": 12, "seqlen": 12}],
    "dyck": [{"seqlen": 40}, {"vocab_size": 8, "seqlen": 20, "n_kinds": 3, "max_depth": 3}],
    "regbench": [{"seqlen": 100}],
    "list-ops": [{}, {"seqlen": 4, "modulus": 7}],
}

# Rules that are the task itself: looking up the whole key, of one token; counting, but for ties.
SOLUTIONS = {
    "majority": ("most frequent answer so far", "match of 1", "match of 2"),  # or else frequent
    **dict.fromkeys(("mqar", "noisy-recall", "recall"), ("match of 1", "match of 2")),
    "mqar-overwrite": ("match of 1", "match of 2"),
    "needle": ("match of 1",),
    "mqar-compositional": ("match of 2",),
    "set-intersection": ("most frequent answer so far", "match of 1", "match of 2"),
}


def matches(x: Tensor, length: int) -> Tensor:
    """Return (B, now, then): whether the last `length` tokens are the same, then being earlier."""
    same = x[:, :, None] == x[:, None, :]
    for back in range(1, length):
        shifted = x.roll(back, 1)
        same &= shifted[:, :, None] == shifted[:, None, :]
    position = torch.arange(x.shape[1])
    return same & (position < position[:, None]) & (position >= length - 1)


def lazy(task: Task, learn: Batch, batch: Batch) -> Iterator[tuple[str, Tensor]]:
    """Yield (rule, answers (B, L)) of each rule on `batch`."""
    x = batch.inputs
    B, L = x.shape
    position = torch.arange(L)
    near = position.to(torch.int16)  # a quarter of the memory to go through, for (B, L, L)
    scored = learn.targets != IGNORE
    labels = learn.targets[scored]
    answers = torch.zeros(task.vocab_size, dtype=torch.bool)
    answers[labels] = True
    is_answer = answers[x]

    yield "most frequent label", labels.bincount().argmax().expand(B, L)
    counts = torch.zeros(L, task.vocab_size)
    counts.index_put_((scored.nonzero()[:, 1], labels), torch.ones(()), accumulate=True)
    yield "most frequent label of the position", counts.argmax(1).expand(B, L)

    so_far = torch.nn.functional.one_hot(x * is_answer, task.vocab_size) * is_answer[..., None]
    frequent = so_far.cumsum(1, dtype=torch.int16).argmax(2)
    yield "most frequent answer so far", frequent
    latest = torch.where(is_answer, position, -1).cummax(1).values
    yield "latest answer", x.gather(1, latest.clamp_min(0))
    yield "first answer", x.gather(1, is_answer.int().argmax(1, keepdim=True)).expand(B, L)
    for lag in range(min(L, 40)):
        yield f"token {lag} before", torch.where(position >= lag, x.roll(lag, 1), -1)
    for place in (*range(min(L, 24)), *range(max(24, L - 24), L)):
        yield f"token at {place}", torch.where(position >= place, x[:, place : place + 1], -1)

    run = position - torch.where(is_answer, -1, position).cummax(1).values  # of answers up to here
    for length in (1, 2):
        # What stood behind the latest place with the same last tokens and answers since.
        fits = torch.zeros(B, L, L, dtype=torch.bool)
        for since in range(int(run.max()) + 1 if run.max() < 6 else 0):
            alike = matches(x, length + since) & is_answer.roll(-1, 1)[:, None]
            fits = torch.where((run == since)[..., None], alike, fits)
        source = (fits * (near + 1)).argmax(2)
        guess = torch.where(fits.any(2), x.gather(1, (source + 1).clamp_max(L - 1)), frequent)
        yield f"token behind the answers since and the latest match of {length}", guess
        for first in (False, True):
            # What stood behind the latest, or first, place with the same last tokens.
            same = matches(x, length)
            for offset in (1, 2):  # behind it at once, or past one token
                fits = same & (near < near[:, None] - offset + 1)
                fits &= is_answer.roll(-offset, 1)[:, None]
                order = near if not first else L - near
                source = (fits * (order + 1)).argmax(2)
                which = "first" if first else "latest"
                yield (
                    f"token {offset} behind the {which} match of {length}",
                    torch.where(
                        fits.any(2), x.gather(1, (source + offset).clamp_max(L - 1)), frequent
                    ),
                )


def shares(guess: Tensor, batch: Batch) -> Tensor:
    """Return the share of right answers of each example: its positions are not independent."""
    scored = batch.targets != IGNORE
    return ((guess == batch.targets) & scored).sum(1) / scored.sum(1)


@pytest.mark.parametrize("name", SETTINGS)
def test_no_lazy_rule_beats_the_best_listed_shortcut(name: str) -> None:
    for params in SETTINGS[name]:
        task = make_task(name, **params)
        learn, batch = (
            task.sample(EXAMPLES, torch.Generator().manual_seed(seed)) for seed in (0, 1)
        )
        listed = [shares(rule(batch.inputs), batch) for rule in task.shortcuts.values()]
        best = max([torch.full((EXAMPLES,), task.chance), *listed], key=lambda s: float(s.mean()))
        for rule, guess in lazy(task, learn, batch):
            found = shares(guess, batch)
            more = found - best
            solves = found.min() == 1 or rule.endswith(SOLUTIONS.get(name, ("-",)))
            allowed = 4 * more.std() / EXAMPLES**0.5
            assert solves or more.mean() <= allowed, (params, rule, found.mean(), best.mean())


def test_every_task_of_tokens_is_searched() -> None:
    built_in = {name for name in TASKS.names() if TASKS.entry(name).origin == "built-in"}
    assert built_in == set(SETTINGS) | {"icl-functions"}
