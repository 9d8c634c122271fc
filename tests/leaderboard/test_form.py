from __future__ import annotations

import pytest

from mechbench.leaderboard.form import form_faults
from mechbench.record.config import Config

TIMES = {"train": 1.0, "evaluate": 1.0, "total": 2.0}


def faults_of(times: dict[str, float] = TIMES, **settings: object) -> list[str]:
    given = {"operator": "attention", "task": "recall", "seqlen": 8, "budget_tokens": 1, **settings}
    given |= {"eval_seqlens": (8,), "curriculum": ((8, 64),)}
    origin = dict.fromkeys(
        ("mechbench", "torch", "python", "platform", "device", "date", "command"), "x"
    )
    data = {"provenance": origin, "seconds": times, "steps": 1, "train_tokens": 1,
            "evaluations": []}  # fmt: skip
    return form_faults(data, Config(**given))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["theirs", "fla:GLA", "my-package.Layer_2", "_private", "hyena2"])
def test_names_of_plugins_and_packages_are_taken(name: str) -> None:
    assert faults_of(operator=name) == []


@pytest.mark.parametrize("name", ["Hyena", "hy-ena", "l1near-attention", "Linear_Attention", "S4D"])
def test_names_too_like_a_known_one_are_not(name: str) -> None:
    (fault,) = faults_of(operator=name)
    assert fault.endswith(": rename it")


def test_names_are_shown_in_ascii() -> None:
    (fault,) = faults_of(operator="hy\u0435na")
    assert fault.startswith("operator is called 'hy\\u0435na': expected letters")


def test_times_of_other_names_do_not_stand_for_those_that_are_missing() -> None:
    missing = ["seconds lack one of train, evaluate, total"]
    assert faults_of({"tr in": 1.0, "evaluate": 1.0, "total": 2.0}) == missing
    assert faults_of({**TIMES, "more": 1.0}) == []
