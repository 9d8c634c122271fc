from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mechbench.data.baselines import required_context, shortcut_accuracies
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks import regbench
from mechbench.tasks.automata import Automata
from mechbench.tasks.base import IGNORE, UNKNOWN, make_task, matches
from mechbench.tasks.regbench import Regbench

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 19, "seqlen": 384},
    {"vocab_size": 30, "seqlen": 100, "max_states": 6, "max_edges": 2, "min_word": 4,
     "max_word": 20},
    {"vocab_size": 19, "seqlen": 100, "n_automata": 50},
)  # fmt: skip


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_example_of_the_docstring() -> None:
    inputs = torch.tensor([[2, 1, 4, 2, 0, 3, 1, 0, 2, 1, 4, 4, 0]])
    task = Regbench(5, 13, max_alphabet=4, max_word=11)
    n = UNKNOWN
    assert task.oracle(inputs)[0].tolist() == [n, n, n, n, 2, n, n, 3, 1, 4, 2, n, 2]


@st.composite
def tasks(draw: st.DrawFn) -> Regbench:
    edges, letters = draw(st.integers(1, 4)), draw(st.integers(4, 8))
    states, word = draw(st.integers(edges + 1, 9)), draw(st.integers(1, 12))
    longest = draw(st.integers(word, 20))
    return Regbench(
        letters + draw(st.integers(1, 4)), longest + draw(st.integers(2, 80)), edges + 1, states,
        4, letters, edges, word, longest,
    )  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(task=tasks(), seed=st.integers(0, 2**40))
def test_every_example_has_the_structure_of_the_docstring(
    task: Regbench, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Automata] = []
    draw = regbench.draw_automata

    def record(*args: Any) -> Automata:
        drawn.append(draw(*args))
        return drawn[-1]

    with monkeypatch.context() as patch:
        patch.setattr(regbench, "draw_automata", record)
        batch = task.sample(6, generator(seed))
    made = drawn[0]
    assert batch.also is not None
    for row, (inputs, dense, targets, also) in enumerate(
        zip(*(t.tolist() for t in (batch.inputs, batch.dense_targets, batch.targets, batch.also)),
            strict=True)
    ):  # fmt: skip
        numbers = made.n_edges[row, :, 0].tolist()
        edges = [
            dict(zip([s + 1 for s in symbols[:n]], ends[:n], strict=True))
            for symbols, ends, n in zip(
                made.symbols[row].tolist(), made.follows[row].tolist(), numbers, strict=True
            )
        ]
        went_on: dict[tuple[int, ...], list[int]] = {}
        state, word, lengths = 0, (), []  # type: int, tuple[int, ...], list[int]
        for t, token in enumerate([*inputs, None]):
            if t:  # what is asked for at t - 1
                told = (dense[t - 1], {*also[t - 1]} - {IGNORE})
                after = dense[t - 1] if token is None else token
                if went_on.get(word) and after > 0:
                    assert told == (after, {*edges[state]} - {after})
                else:
                    assert told == (IGNORE, set())
            if token is None:
                break
            if token == 0:
                lengths.append(len(word))
                state, word = 0, ()
                continue
            went_on.setdefault(word, []).append(token)
            state = edges[state][token]  # legal
            word = (*word, token)
        assert all(task.min_word <= n <= task.max_word for n in lengths)
        assert len(word) <= task.max_word
        scored = task.apart_by - 1
        assert targets == [IGNORE] * scored + dense[scored:]
        assert any(t != IGNORE for t in targets)


def test_word_lengths_are_uniform() -> None:
    inputs = Regbench(19, 2000, min_word=3, max_word=7).sample(200, generator()).inputs
    ends = (inputs == 0).nonzero()
    lengths = (ends[1:] - ends[:-1])[ends[1:, 0] == ends[:-1, 0], 1] - 1
    share = torch.bincount(lengths, minlength=8).double() / len(lengths)
    expected = torch.tensor([0, 0, 0, *[0.2] * 5]).double()
    torch.testing.assert_close(share, expected, rtol=0, atol=0.01)


@given(task=tasks(), window=st.integers(1, 40), seed=st.integers(0, 2**40))
def test_a_window_tells_what_words_behind_its_first_bar_show(
    task: Regbench, window: int, seed: int
) -> None:
    batch = task.sample(4, generator(seed))
    for end in range(window, task.seqlen):
        rows = batch.dense_targets[:, end - 1] != IGNORE
        answers = task.oracle(batch.inputs[:, end - window : end])[rows, -1].tolist()
        for x, told in zip(batch.inputs[rows, :end].tolist(), answers, strict=True):
            seen = x[-window:]
            text = "".join(chr(65 + t) if t else "|" for t in seen).split("|")[1:]
            if not text:
                assert told == UNKNOWN
                continue
            now = text.pop()
            nexts = [w[len(now)] for w in text if w.startswith(now) and w != now]
            assert told == (ord(nexts[-1]) - 65 if nexts else UNKNOWN)


def test_a_window_guess_is_what_followed_the_longest_same_tokens() -> None:
    task = Regbench(19, 384)
    seen = torch.tensor([[5, 1, 2, 7, 9, 2, 8, 1, 2], [5, 1, 2, 0, 9, 1, 8, 1, 2]])
    assert task.window_guess(seen, torch.tensor([99, 99])).tolist() == [7, UNKNOWN]


def test_shortcuts_and_required_context_of_the_default() -> None:
    task = Regbench(19, 384)
    batch = task.sample(500, generator())
    found = shortcut_accuracies(task, batch)
    assert 0.45 < found["most frequent symbol"] < 0.55
    assert 0.8 < found["behind the same token"] < 0.87
    assert 0.95 < found["behind the same two tokens"] < 0.985
    scored = (batch.targets != IGNORE).double().sum(1).mean().item()
    assert 65 < scored < 80
    needed = required_context(task, batch)
    assert needed[16] < 0.75
    assert needed[384] == 1


def test_chance_is_near_the_share_of_legal_symbols() -> None:
    task = Regbench(19, 384)
    batch = task.sample(1000, generator())
    assert batch.also is not None
    legal = 1 + (batch.also != IGNORE).sum(2)[batch.targets != IGNORE].double().mean().item()
    assert task.chance == pytest.approx(1 / 9)
    assert 0.85 < legal / 18 / task.chance < 0.92


def test_beginnings_of_32_tokens_are_hardly_drawn_twice() -> None:
    task = Regbench(19, 384)
    assert task.apart_by == 32
    assert Regbench(19, 64).apart_by == 15
    inputs = torch.cat([task.sample(5000, generator(seed)).inputs[:, :32] for seed in range(4)])
    assert len(inputs.unique(dim=0)) > 0.99 * len(inputs)


def test_training_may_have_few_automata_and_the_test_set_has_new_ones(device: str) -> None:
    def beginnings(task: Regbench, seed: int) -> set[int]:
        drawn = task.sample(500, torch.Generator(device).manual_seed(seed)).inputs
        return set(drawn[:, 0].tolist())

    task = Regbench(19, 64, n_automata=1)
    assert 1 <= len(beginnings(task, 0)) <= task.max_edges
    assert beginnings(task, 0) == beginnings(task, 1) == beginnings(task.easier(51), 2)
    assert len(beginnings(task.tested(), 0)) == 18
    assert task.tested() == Regbench(19, 64)
    many = Regbench(19, 64, n_automata=1000)
    assert len(beginnings(many, 0)) > 10
    batch = many.sample(64, torch.Generator(device).manual_seed(0))
    scored = batch.dense_targets != IGNORE
    assert matches(many.oracle(batch.inputs), batch.dense_targets, batch.also)[scored].all()


def test_sizes() -> None:
    assert make_task("regbench").vocab_size == 19
    assert make_task("regbench", max_alphabet=30).vocab_size == 31


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"vocab_size": 18}, "vocab_size is 18: regbench .* needs at least 19"),
        (ConfigError, {"max_edges": 7}, "max_edges is 7: expected 1 to 6"),
        (ConfigError, {"min_states": 3}, "min_states is 3: expected at least 4 with max_edges 3"),
        (ConfigError, {"max_states": 3}, "max_states is 3: expected at least min_states, 4"),
        (ConfigError, {"min_alphabet": 2}, "min_alphabet is 2: expected at least 3"),
        (ConfigError, {"min_word": 0}, "min_word is 0: expected at least 1"),
        (ConfigError, {"max_word": 0}, "max_word is 0: expected at least min_word, 1"),
        (ConfigError, {"n_automata": -1}, "n_automata is -1: expected 0, for new ones, or more"),
        (SeqlenError, {"seqlen": 50}, "seqlen is 50: regbench .* needs at least 51"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        Regbench(**{"vocab_size": 19, "seqlen": 384, **given})
    with pytest.raises(ConfigError):
        make_task("regbench", max_alphabet="many")
