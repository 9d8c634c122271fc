"""Required context against a solver of windows that knows a task by its examples alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mechbench.catalogue.registry import TASKS
from mechbench.data import baselines
from mechbench.data.baselines import required_context
from mechbench.tasks.base import IGNORE, Batch, make_task, matches
from mechbench.tasks.icl_functions import IclFunctions

TOKENS = 400_000  # of all examples of a case

CASES: list[tuple[str, dict[str, Any], list[int]]] = [
    ("majority", {"vocab_size": 3, "seqlen": 9}, [2, 4, 5]),
    ("majority", {"vocab_size": 3, "seqlen": 8, "lead": 0.5}, [1, 4, 6]),
    ("counting", {"vocab_size": 6, "seqlen": 7}, [1, 3, 6]),
    ("counting", {"vocab_size": 9, "seqlen": 6}, [1, 2]),
    ("noisy-recall", {"vocab_size": 6, "n_noise": 2, "seqlen": 12}, [1, 2, 3, 4]),
    ("noisy-recall", {"vocab_size": 6, "n_noise": 0, "noise_share": 0.0, "seqlen": 10}, [2, 4]),
    ("multi-key-recall", {"vocab_size": 6, "seqlen": 12}, [3, 4, 5, 6]),
    ("multi-key-recall", {"vocab_size": 6, "seqlen": 16, "key_len": 3}, [4, 6, 7]),
    ("recall", {"vocab_size": 6, "seqlen": 8}, [2, 4, 6]),
    ("mqar", {"vocab_size": 8, "seqlen": 12, "n_pairs": 2, "power": 1.0}, [2, 4, 6]),
    ("mqar", {"vocab_size": 8, "seqlen": 12, "n_pairs": 3, "power": 1.0}, [2, 4, 6]),
    ("mqar", {"vocab_size": 6, "seqlen": 10, "n_pairs": 2, "power": 1.0, "random_filler": True},
     [2, 3]),
    ("induction", {"vocab_size": 5, "seqlen": 7}, [2, 3, 5]),
    ("induction", {"vocab_size": 4, "seqlen": 8, "induction_len": 3}, [2, 4, 6]),
    ("induction", {"vocab_size": 4, "seqlen": 9, "induction_len": 2, "n_triggers": 2}, [3, 4, 6]),
    ("fuzzy-recall", {"vocab_size": 7, "seqlen": 60, "key_len": 2, "value_len": 3}, [4, 5]),
    ("fuzzy-recall", {"vocab_size": 6, "seqlen": 60, "key_len": 1, "value_len": 3}, [3, 4]),
    ("fuzzy-recall", {"vocab_size": 7, "seqlen": 60, "key_len": 3, "value_len": 1}, [4, 5, 6]),
    ("arithmetic", {"vocab_size": 4, "seqlen": 7}, [1, 2, 4, 5, 6]),
    ("arithmetic", {"vocab_size": 3, "seqlen": 9}, [2, 5, 6, 8]),
    ("compression", {"vocab_size": 4, "seqlen": 5}, [2, 4]),
    ("selective-copying", {"vocab_size": 4, "seqlen": 9, "n_copied": 2}, [2, 4, 6]),
    ("memorization", {"vocab_size": 9, "seqlen": 8}, [1, 2]),
    ("flip-flop", {"vocab_size": 5, "seqlen": 12}, [2, 3, 4, 6]),
    ("flip-flop", {"vocab_size": 5, "seqlen": 10, "p_ignore": 0.5}, [2, 5, 8]),
    ("group-word", {"vocab_size": 2, "seqlen": 8, "group": "Z2"}, [2, 4]),
    ("group-word", {"vocab_size": 6, "seqlen": 5}, [1, 2]),
    ("parity", {"vocab_size": 3, "seqlen": 8}, [1, 3, 5]),
    ("even-pairs", {"vocab_size": 3, "seqlen": 8}, [1, 3, 5]),
    ("cycle-navigation", {"vocab_size": 7, "seqlen": 30, "n_positions": 3}, [1, 3]),
    ("modular-arithmetic", {"vocab_size": 9, "seqlen": 15}, [1, 2]),
    ("modular-arithmetic", {"vocab_size": 11, "seqlen": 39, "brackets": True}, [1, 2]),
    ("k-hop", {"vocab_size": 7, "seqlen": 9, "n_symbols": 3, "max_hops": 2}, [1, 2, 4, 6, 7]),
    ("k-hop", {"vocab_size": 12, "seqlen": 9, "n_symbols": 4, "hops": 4, "max_hops": 6}, [2, 4]),
    ("dyck", {"vocab_size": 5, "seqlen": 10, "n_kinds": 2, "max_depth": 2}, [1, 2, 4, 6]),
    ("sort", {"vocab_size": 5, "seqlen": 6}, [2, 4, 6, 8]),
    ("sort", {"vocab_size": 8, "seqlen": 4}, [1, 2, 3, 4, 6]),
    ("copy", {"vocab_size": 5, "seqlen": 5}, [3, 5, 6]),
    ("palindrome", {"vocab_size": 6, "seqlen": 6}, [2, 4, 6]),
    ("palindrome", {"vocab_size": 5, "seqlen": 6, "min_seqlen": 3}, [2, 4, 6]),
    ("ngram-lookup", {"vocab_size": 8, "seqlen": 8}, [2, 3]),
    ("ngram-lookup", {"vocab_size": 6, "seqlen": 12, "n": 1}, [2, 3, 4]),
    ("ngram-lookup", {"vocab_size": 7, "seqlen": 8, "n_answer": 2}, [2]),
    ("mqar-overwrite", {"vocab_size": 8, "seqlen": 14, "n_pairs": 2, "n_updates": 1, "power": 1.0},
     [2, 4, 6]),
    ("mqar-overwrite", {"vocab_size": 8, "seqlen": 12, "n_pairs": 2, "n_updates": 2, "power": 1.0},
     [2, 4, 6]),
    ("mqar-compositional", {"vocab_size": 11, "seqlen": 23, "power": 1.0}, [2, 4]),
    ("mqar-compositional", {"vocab_size": 11, "seqlen": 26, "power": 1.0}, [3]),
    ("n-back", {"vocab_size": 4, "seqlen": 12, "n": 1}, [2, 4]),
    ("n-back", {"vocab_size": 6, "seqlen": 16, "n": 2}, [2, 3, 4]),
    ("set-intersection", {"vocab_size": 9, "seqlen": 8, "n_short": 2}, [2, 3]),
    ("set-intersection", {"vocab_size": 6, "seqlen": 9, "n_short": 3, "short_first": False},
     [2, 3, 4, 5]),
    ("needle", {"vocab_size": 6, "seqlen": 7, "n_needles": 2}, [2, 3, 4, 5]),
    ("needle", {"vocab_size": 7, "seqlen": 8, "n_needles": 2, "n_queries": 2}, [2, 3, 4, 5]),
    ("variable-chains", {"vocab_size": 8, "seqlen": 14, "hops": 1}, [2, 4, 5, 6]),
    ("variable-chains", {"vocab_size": 8, "seqlen": 9, "hops": 2, "n_chains": 1}, [2, 4, 6]),
    ("stack", {"vocab_size": 6, "seqlen": 14, "n_stacks": 2}, [2, 3, 4, 5]),
    ("stack", {"vocab_size": 6, "seqlen": 11, "n_stacks": 1}, [2, 3, 4, 5]),
]  # fmt: skip


def by_heart(batch: Batch, window: int, place_by_place: bool) -> tuple[float, float]:
    """Score the answers that most often followed each window, learnt from half of the examples.

    Returns:
        The accuracy on the other half and on that half: the best guess lies between the two.
    """
    rows, columns = (batch.targets != IGNORE).nonzero(as_tuple=True)
    cut = columns + 1 >= window  # the others see all there is
    kept, at = rows[cut], columns[cut]
    seen = batch.inputs.unfold(1, window, 1)[kept, at + 1 - window]
    if place_by_place:
        seen = torch.cat([seen, at[:, None]], 1)
    radix = (int(seen.max()) + 1) ** torch.arange(seen.shape[1])
    which = (seen * radix).sum(1).unique(return_inverse=True)[1]
    answers = batch.targets[kept, at]
    learnt = kept < len(batch.inputs) // 2
    counts = torch.zeros(int(which.max()) + 1, int(answers.max()) + 1)
    counts.index_put_((which[learnt], answers[learnt]), torch.ones(()), accumulate=True)
    right = (counts.argmax(1)[which] == answers).double()
    told = 1 - len(kept) / len(rows)
    low, high = sorted(told + (1 - told) * right[m].mean().item() for m in (~learnt, learnt))
    return low, high


@pytest.mark.parametrize(("name", "params", "lengths"), CASES)
def test_required_context_is_what_learning_windows_by_heart_gives(
    name: str, params: dict[str, Any], lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "windows", lambda input_seqlen: [*lengths, input_seqlen])
    task = make_task(name, **params)
    batch = task.sample(min(20_000, TOKENS // task.seqlen), torch.Generator().manual_seed(1))
    found = required_context(task, batch)
    for window in lengths:
        # The ends of fuzzy-recall tell a little more to who knows the place.
        low, high = by_heart(batch, window, place_by_place=name != "fuzzy-recall")
        assert high - low < 0.04, window  # enough examples of each window
        assert low - 0.01 < found[window] < high + 0.01, window
    assert found[batch.inputs.shape[1]] == 1


def test_every_task_has_a_case() -> None:
    built_in = {name for name in TASKS.names() if TASKS.entry(name).origin == "built-in"}
    others = {"icl-functions", "list-ops", "regbench"}  # the test below; lower bounds
    assert built_in == {name for name, *_ in CASES} | others


def test_icl_functions_from_too_few_points_is_the_mean_of_the_posterior() -> None:
    task = IclFunctions(4, 16)
    batch = task.sample(2000, torch.Generator().manual_seed(0))
    seen = batch.inputs[:, -6:]  # y of a hidden x, two points, the x asked for
    guess = task.window_guess(seen, torch.full((len(seen),), 14))
    x, y, query = seen[:, 1::2, :4][:, :2].double(), seen[:, 2::2, 4].double(), seen[:, -1, :4]
    # Of normal y and y', the mean of y' given y: cov(y', y) cov(y, y)^-1 y.
    mean = (query[:, None].double() @ x.mT @ torch.linalg.inv(x @ x.mT) @ y[..., None]).flatten()
    torch.testing.assert_close(guess.double(), mean, rtol=1e-4, atol=1e-4)
    answers = batch.targets[:, -1]
    share = {d: matches(guess + d, answers).double().mean().item() for d in (0, -0.3, 0.3)}
    assert share[0] > max(share[-0.3], share[0.3]) > 0
    assert share[0] > task.chance
