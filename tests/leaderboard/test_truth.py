from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from leaderboard.forgeries import score
from mechbench.leaderboard import truth
from mechbench.leaderboard.truth import Given, Truths, _against, _reachable
from mechbench.leaderboard.validate import faults
from mechbench.record.config import Config
from mechbench.training.cell import run


def test_accuracy_above_the_oracle_is_refused_beyond_luck(genuine: dict[str, Any]) -> None:
    """As of a plugin's task whose answers are noisy: what it tells is right in 80 percent."""
    (first, _) = score(genuine, 0.85)["evaluations"]
    given = Given(256, first["dense_n"], {}, {"16": 0.5, "18": 0.8}, (0.8,))
    first["required_context"] = {"18": 0.8}
    assert _against(first, given, False) == []
    (first, _) = score(genuine, 1.0)["evaluations"]
    assert _against(first, given, False) == ["accuracy 1.0000 is above the oracle's 0.8000"]


def test_oracle_of_fewer_columns_is_an_older_versions(genuine: dict[str, Any]) -> None:
    first = genuine["evaluations"][0]
    given = Given(256, first["dense_n"], {}, {"18": 0.8}, (0.8, 0.79))
    for oracle, sound in ((0.8, True), (0.79, True), (0.795, False)):
        first["required_context"] = {"18": oracle}
        assert (_against(first, given, False) == []) == sound


def test_sets_are_drawn_once_a_task_length_and_seed(
    genuine: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[int, str]] = []
    draw = Truths._draw

    def counted(self: Truths, config: Any, length: int, split: str) -> Any:
        drawn.append((length, split))
        return draw(self, config, length, split)

    monkeypatch.setattr(Truths, "_draw", counted)
    monkeypatch.setattr(truth, "_TOLD_TOKENS", 6000)
    said: list[str] = []
    truths = Truths(said.append)
    for _ in range(3):
        truths.faults(genuine)
        truths.corrected(genuine)
    assert drawn == [(16, "test"), (24, "test"), (16, "validation")]
    assert said == ["drawing 256 test examples of recall at 24 again"]


def test_filter_of_a_plugin_that_is_not_here_cannot_be_refuted(genuine: dict[str, Any]) -> None:
    """As an operator of one; without a plugin nobody has such a filter."""
    config = genuine["config"]
    config["operator"], config["operator_options"] = "hyena", {"filter": "theirs", "rate": 2}
    (fault,) = Truths().faults(genuine)
    assert fault.startswith("unknown filter 'theirs'")
    config["plugins"] = {"theirs.py": "ab12"}
    assert Truths().faults(genuine) == []


def test_what_cannot_be_drawn_again_is_not_believed(
    genuine: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(truth, "_MOST_TOKENS", 5000)
    (fault,) = Truths().faults(genuine)
    assert fault == "at 24: 256 examples are 6656 tokens, more than can be drawn again (5000)"


@pytest.mark.parametrize(
    ("steps", "tokens", "reached"),
    [
        (7, 7 * 100, False),  # the second stage comes after 10 steps at the earliest
        (30, 10 * 20 + 20 * 100, True),
        (30, 20 * 20 + 10 * 100, True),
        (30, 15 * 20 + 15 * 100, False),  # stages end on every tenth step
        (60, 50 * 20 + 10 * 100, False),  # the first one has its share after 40
        (30, 30 * 100, False),
    ],
)
def test_steps_and_tokens_fit_the_stages(steps: int, tokens: int, reached: bool) -> None:
    """A stage of 20 tokens a step with 800 tokens at most, then one of 100."""
    assert _reachable(steps, tokens, 100, [20], every=10, shares=[800]) is reached


def test_genuine_curriculum_is_believed(tmp_path: Path) -> None:
    data = run(
        "attention", "counting", seqlen=64, d_model=16, n_layers=1, n_test=64, n_validation=64,
        batch_size=4, budget_tokens=4 * 64 * 20, validate_every=5, device="cpu", quiet=True,
        out=tmp_path,
    ).data  # fmt: skip
    assert len(data["config"]["curriculum"]) == 2
    assert faults(data) == []
    truths = Truths()
    assert truths.faults(data) == []
    data["steps"] += 1
    (fault,) = truths.faults(data)
    assert "impossible with the curriculum" in fault


def test_models_size_is_that_of_the_operator(genuine: dict[str, Any]) -> None:
    right = genuine["parameters"]
    genuine["parameters"] += 1
    found = Truths().faults(genuine)
    assert found == [f"parameters is {right + 1}: the model has {right}"]


def test_whole_squares_of_attention_are_believed_of_older_protocols(
    genuine: dict[str, Any],
) -> None:
    config = dataclasses.replace(Config.from_dict(genuine["config"]), seqlen=4096)
    model = truth._built(truth._model_key(config), 4096 + 2, 4096 + 2)
    data = {"parameters": model[0]}
    eager = dataclasses.replace(config, operator="eager-attention")
    (square,) = {truth._built(truth._model_key(eager), 4096 + 2, 4096 + 2)[1]}
    assert square is not None
    assert model[1] is not None
    assert 1.9 < square / model[1] < 2
    for protocol, most in ((1, 4), (2, 4), (3, 2)):
        told = dataclasses.replace(config, eval_seqlens=(4096,), protocol=protocol)
        for times, sound in ((most * 0.99, True), (most * 1.01, False), (0.6, True), (0.4, False)):
            found = truth._model({**data, "flops_per_token": times * model[1]}, told)
            assert (found == []) == sound, (protocol, times, found)
    assert (
        truth._model(
            {**data, "flops_per_token": square},
            dataclasses.replace(config, eval_seqlens=(4096,), protocol=2),
        )
        == []
    )
