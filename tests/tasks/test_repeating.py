from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN
from mechbench.tasks.copy import Copy
from mechbench.tasks.palindrome import Palindrome

both = pytest.mark.parametrize("cls", [Copy, Palindrome])
Cls = type[Copy] | type[Palindrome]


def sample(task: Copy | Palindrome, n: int, seed: int = 0) -> zip[tuple[list[int], list[int]]]:
    batch = task.sample(n, torch.Generator().manual_seed(seed))
    assert torch.equal(batch.targets, batch.dense_targets)
    return zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True)


@both
@given(
    vocab_size=st.integers(5, 40),
    seqlen=st.integers(1, 40),
    vary=st.integers(0, 40),
    seed=st.integers(0, 2**40),
)
def test_every_example_has_the_structure_of_the_docstring(
    cls: Cls, vocab_size: int, seqlen: int, vary: int, seed: int
) -> None:
    least = min(vary, seqlen)
    task = cls(vocab_size, seqlen, least)
    for inputs, targets in sample(task, 8, seed):
        assert len(inputs) == task.input_seqlen == 2 * seqlen + 1
        n = inputs.index(vocab_size - 1) - 1
        assert (least or seqlen) <= n <= seqlen
        string = inputs[1 : n + 1]
        assert all(1 <= token <= vocab_size - 3 for token in string)
        answer = string[::-1] if cls is Palindrome else string
        padding = 2 * (seqlen - n)
        assert inputs == [vocab_size - 2, *string, vocab_size - 1, *answer[:-1], *[0] * padding]
        assert targets == [IGNORE] * (n + 1) + answer + [IGNORE] * padding


@both
def test_letters_and_lengths_are_uniform(cls: Cls) -> None:
    lengths, letters = torch.zeros(8), torch.zeros(5)
    for _, targets in sample(cls(8, 7, 4), 8000):
        answers = [token for token in targets if token != IGNORE]
        lengths[len(answers)] += 1
        letters += torch.bincount(torch.tensor(answers), minlength=6)[1:]
    assert lengths[:4].sum() == 0
    torch.testing.assert_close(lengths[4:] / 8000, torch.full((4,), 0.25), rtol=0, atol=0.02)
    torch.testing.assert_close(letters / letters.sum(), torch.full((5,), 0.2), rtol=0, atol=0.01)


@both
@given(
    seqlen=st.integers(2, 12),
    vary=st.integers(0, 12),
    window=st.integers(1, 25),
    seed=st.integers(0, 2**40),
)
def test_a_window_tells_what_the_place_of_the_bar_in_it_tells(
    cls: Cls, seqlen: int, vary: int, window: int, seed: int
) -> None:
    """A slow solver: try every length that the string may have."""
    least = min(vary, seqlen)
    task = cls(6, seqlen, least)
    for inputs, targets in sample(task, 4, seed):
        for t in range(window - 1, len(inputs)):
            if targets[t] == IGNORE:
                continue
            seen = inputs[t + 1 - window : t + 1]
            found = task.oracle(torch.tensor([seen]))[0, -1].item()
            places = set()  # where the answer stands in the window
            bar = seen.index(5) if 5 in seen else None
            for n in range(least or seqlen, seqlen + 1):
                if bar is None:
                    places.add(-1)
                elif (4 in seen) == (bar > n) and (4 not in seen or seen[bar - n - 1] == 4):
                    k = window - 1 - bar
                    places.add(bar - 1 - k if cls is Palindrome else bar - n + k)
            known = len(places) == 1 and min(places) >= 0
            assert found == (targets[t] if known else UNKNOWN)


def test_what_is_next_to_the_same_letters_in_the_string() -> None:
    for task, wanted in ((Copy(7, 5), [2, 2, 2, 4]), (Palindrome(7, 5), [3, 2, 2, 2])):
        # s = a b b c d: behind the first b stands b, before the last b too.
        string = [1, 2, 2, 3, 4]
        answer = string if isinstance(task, Copy) else string[::-1]
        inputs = torch.tensor([[5, *string, 6, *answer[:-1]]])
        guess = task.shortcuts["next to the same letter"](inputs)[0, 7:].tolist()
        assert guess == wanted


@both
@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"vocab_size": 4}, "vocab_size is 4: .* needs at least 5"),
        (SeqlenError, {"seqlen": 0}, "seqlen is 0: .* needs at least 1"),
        (ConfigError, {"min_seqlen": 9}, "min_seqlen is 9: .* the nearest is 8"),
        (ConfigError, {"min_seqlen": -1}, "the nearest is 1"),
    ],
)
def test_bad_parameters_raise(
    cls: Cls, error: type[Exception], given: dict[str, Any], says: str
) -> None:
    with pytest.raises(error, match=says):
        cls(**{"vocab_size": 29, "seqlen": 8, **given})
