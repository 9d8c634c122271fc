from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN
from mechbench.tasks.variable_chains import VariableChains

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 64, "seqlen": 256},
    {"vocab_size": 40, "seqlen": 300, "hops": 2, "n_chains": 5},
)

EXAMPLE = [4, 0, 9, 11, 2, 0, 10, 5, 0, 4, 3, 0, 2, 9, 12, 10, 12]


def sample(task: VariableChains, n: int, seed: int = 0) -> zip[tuple[list[int], list[int]]]:
    batch = task.sample(n, torch.Generator().manual_seed(seed))
    assert torch.equal(batch.targets, batch.dense_targets)
    return zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True)


def test_the_example_of_the_docstring() -> None:
    task, inputs = VariableChains(13, 14, 1, 2), torch.tensor([EXAMPLE])
    assert task.oracle(inputs)[0].tolist() == [UNKNOWN] * 15 + [2, 3]
    wanted = {
        "names of the first assignments": [4, 2],
        "names of the last assignments": [5, 3],
        "name assigned the value itself": [2, 2],
    }
    for name, answers in wanted.items():
        assert task.shortcuts[name](inputs)[0, 15:].tolist() == answers
    assert [task.describe(token) for token in (0, 1, 8, 9, 11, 12)] == [
        "=", "x1", "x8", "v1", "v3", "=>"
    ]  # fmt: skip


@st.composite
def tasks(draw: st.DrawFn) -> VariableChains:
    hops, C = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    n = C * (hops + 1)
    vocab_size = max(3 * n // 2, 3 * max(2, C)) + 2 + draw(st.integers(0, 20))
    return VariableChains(vocab_size, 3 * n + draw(st.integers(0, 30)), hops, C)


@given(task=tasks(), seed=st.integers(0, 2**40))
def test_every_example_has_the_structure_of_the_docstring(task: VariableChains, seed: int) -> None:
    L, hops = task.seqlen, task.hops
    kind = [task.describe(token)[0] for token in range(task.vocab_size)]
    for inputs, targets in sample(task, 8, seed):
        value_of: dict[int, int] = {}
        names: dict[int, list[int]] = {}
        t = 0
        while t < L:
            if kind[inputs[t]] == "x":
                assert inputs[t + 1] == 0
                value = value_of.get(inputs[t + 2], inputs[t + 2])  # assigned before
                assert kind[value] == "v"
                assert inputs[t] not in value_of
                value_of[inputs[t]] = value
                names.setdefault(value, []).append(inputs[t])
                # The source is the chain's latest name, or its value.
                assert inputs[t + 2] == [value, *names[value]][-2]
                t += 3
            else:
                assert kind[inputs[t]] == "v"
                t += 1
        assert len(names) == task.n_chains
        assert all(len(chain) == hops + 1 for chain in names.values())
        asked = inputs[L + 1]
        assert inputs[L:] == [task.vocab_size - 1, asked, *[task.vocab_size - 1] * hops]
        assert targets == [IGNORE] * (L + 1) + names[asked]


def solve(task: VariableChains, seen: list[int], asked: int, j: int) -> tuple[set[int], bool]:
    """Return the possible answers of a window, -1 for a hidden name, and whether a pair is cut.

    Try every name that a cut assignment may have, and every chain that may have the value.
    """
    M, C, length = task._n_names, task.n_chains, task.hops + 1
    pairs = [(seen[t - 1], seen[t + 1]) for t in range(1, len(seen) - 1) if seen[t] == 0]
    cut = None
    if len(seen) > 1 and seen[0] == 0:
        cut = seen[1]
    elif len(seen) > 1 and 1 <= seen[0] <= M and seen[1] != 0:
        cut = seen[0]
    sources = [source for _, source in pairs]
    roots = {source for source in sources if 1 <= source <= M} - {name for name, _ in pairs}
    found = set()
    for name in [*roots, -1] if cut is not None else [None]:
        source_of = dict(pairs) if name is None else {name: cut, **dict(pairs)}
        chains = []
        for end in (e for e in source_of if e not in sources):
            chain = [end]
            while chain[0] in source_of:
                chain.insert(0, source_of[chain[0]])  # type: ignore[arg-type]
            chains.append(chain)
        rooted = [chain for chain in chains if chain[0] > M]
        others = [chain for chain in chains if chain[0] <= M]
        if len(chains) > C or any(len(chain) != 1 + length for chain in rooted):
            continue
        if any(len(chain) > length for chain in others):
            continue
        own = [chain for chain in rooted if chain[0] == asked]
        for chain in own or others + [[]] * (C - len(chains)):
            k = length - j  # from the end
            found.add(chain[-k] if k <= len(chain) else -1)
    return found, cut is not None


@given(task=tasks(), seed=st.integers(0, 2**40), window=st.integers(1, 60))
def test_a_window_tells_what_its_assignments_tell(
    task: VariableChains, seed: int, window: int
) -> None:
    L = task.seqlen
    for inputs, targets in sample(task, 3, seed):
        for j in range(task.hops + 1):
            end = L + 2 + j
            begin = max(0, end - window)
            answer = task.oracle(torch.tensor([inputs[begin:end]]))[0, -1].item()
            assert answer in (UNKNOWN, targets[L + 1 + j])
            if begin >= L:
                assert answer == UNKNOWN
                continue
            possible, cut = solve(task, inputs[begin:L], inputs[L + 1], j)
            assert possible & {targets[L + 1 + j], -1}
            if answer != UNKNOWN:
                assert possible == {answer}
            elif not cut or task.n_chains == 1:  # several chains: their lengths may tell more
                assert len(possible) > 1 or possible == {-1}


def test_chains_are_mixed_uniformly_and_asked_for_uniformly() -> None:
    task = VariableChains(20, 14, 1, 2)
    mixed: dict[tuple[bool, ...], int] = {}
    last = 0
    names = torch.zeros(task.vocab_size)
    for inputs, targets in sample(task, 12_000):
        starts = [t - 1 for t in range(14) if inputs[t] == 0]
        own = tuple(inputs[t] in targets for t in starts)
        mixed[own] = mixed.get(own, 0) + 1
        last += starts[-1] == 11
        names[targets[-1]] += 1
    assert len(mixed) == 6
    assert all(count / 12_000 == pytest.approx(1 / 6, abs=0.015) for count in mixed.values())
    assert last / 12_000 == pytest.approx(4 / 6, abs=0.02)  # four of six places of three tokens
    share = names[1 : task._n_names + 1] / 12_000
    torch.testing.assert_close(share, torch.full_like(share, task.chance), rtol=0, atol=0.012)


def test_a_chain_whose_value_is_hidden_is_the_best_guess() -> None:
    task = VariableChains(13, 14, 1, 2)
    seen = torch.tensor([EXAMPLE])[:, 7:]  # x5 = x4, x3 = x2; the values of both are hidden
    assert task.oracle(seen)[0, -1] == UNKNOWN
    assert task.window_guess(seen, torch.tensor([16])) in (3, 5)
    assert task.window_guess(seen[:, :-1], torch.tensor([15])) in (2, 4)
    assert task.window_guess(seen[:, 6:], torch.tensor([16])) == 1  # not visible


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"hops": 0}, "hops is 0: expected at least 1"),
        (ConfigError, {"n_chains": 0}, "n_chains is 0: expected at least 1"),
        (ConfigError, {"vocab_size": 16}, r"vocab_size is 16: 2 chain\(s\) of 4 hop\(s\) .* 17"),
        (SeqlenError, {"seqlen": 29}, "seqlen is 29: .* at least 30"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        VariableChains(**{"vocab_size": 64, "seqlen": 64, **given})


@pytest.mark.parametrize(("hops", "n_chains"), [(1, 1), (1, 2), (4, 2), (2, 5), (1, 9), (3, 3)])
def test_the_smallest_vocabulary_holds_all_names_and_values(hops: int, n_chains: int) -> None:
    def fits(vocab_size: int) -> bool:
        try:
            task = VariableChains(vocab_size, 200, hops, n_chains)
        except ConfigError:
            return False
        names = sum(task.describe(token)[0] == "x" for token in range(vocab_size))
        values = sum(task.describe(token)[0] == "v" for token in range(vocab_size))
        assert names >= n_chains * (hops + 1)
        assert values >= max(2, n_chains)
        return True

    accepted = [vocab_size for vocab_size in range(2, 60) if fits(vocab_size)]
    assert accepted == [*range(accepted[0], 60)]
