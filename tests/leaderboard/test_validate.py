from __future__ import annotations

import datetime
from typing import Any

import pytest

from leaderboard.forgeries import HONEST, rehash, retold, score
from mechbench.leaderboard.validate import faults


def test_faults_are_told_in_words(genuine: dict[str, Any]) -> None:
    first = genuine["evaluations"][0]
    first["ci_high"] = 0.99
    genuine["causal"] = False
    genuine["stop"] = "diverged"
    found = faults(genuine)
    assert found[0].startswith(f"at 16: ci_high is 0.99: {first['correct']} of 256 give 0.")
    assert "stop is 'diverged': status 'ok' contradicts it" in found
    assert "causal is false: only a run with allow_noncausal is ok nevertheless" in found


def test_non_causal_is_sound_where_it_is_allowed(genuine: dict[str, Any]) -> None:
    genuine["causal"] = False
    genuine["config"]["allow_noncausal"] = True
    assert faults(rehash(genuine)) == []


def test_one_model_scores_alike_in_validation_and_test(genuine: dict[str, Any]) -> None:
    """Of 128 and 256 examples: 10 points apart is luck, 40 points is none."""
    score(genuine, 0.5)
    genuine["validation_accuracy"] = 77 / 128
    assert faults(retold(genuine)) == []
    genuine["validation_accuracy"] = 115 / 128
    (fault,) = faults(retold(genuine))
    assert "validation accuracy 0.8984 and test accuracy 0.5000" in fault
    # Of what diverged, the two are of different steps.
    HONEST["diverged, scored"](genuine)
    genuine["validation_accuracy"] = 115 / 128
    assert faults(retold(genuine)) == []


@pytest.mark.parametrize(("days", "sound"), [(0.5, True), (2, False)])
def test_clocks_differ_by_less_than_a_day(
    genuine: dict[str, Any], days: float, sound: bool
) -> None:
    date = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    genuine["provenance"]["date"] = f"{date:%Y-%m-%dT%H:%M:%SZ}"
    assert (faults(genuine) == []) == sound
