from __future__ import annotations

from typing import Any

from mechbench.report.labels import labels
from mechbench.spec import Config


def config(operator: str = "hyena", **changes: Any) -> Config:
    settings: dict[str, Any] = {
        "seqlen": 64,
        "eval_seqlens": (64,),
        "budget_tokens": 1000,
    } | changes
    return Config(operator, "recall", **settings)


def test_seeds_share_the_bare_name() -> None:
    assert labels([config(), config(seed=1), config("attention")]) == [
        "hyena",
        "hyena",
        "attention",
    ]


def test_only_options_that_differ_are_shown() -> None:
    two = config(operator_options={"order": 2, "backend": "torch"})
    three = config(operator_options={"order": 3, "backend": "torch"})
    other = config("h3", operator_options={"order": 4})
    assert labels([two, three, other]) == ["hyena (order=2)", "hyena (order=3)", "h3"]


def test_lr_and_an_option_left_out_in_one() -> None:
    a = config(operator_options={"filter_lr": None}, lr=1e-3)
    b = config(operator_options={"filter_lr": 5e-4}, lr=4e-3)
    assert labels([a, b]) == [
        "hyena (filter_lr=none, lr=0.001)",
        "hyena (filter_lr=0.0005, lr=0.004)",
    ]


def test_batch_size_splits_only_at_one_length() -> None:
    grows = [config(batch_size=128), config(seqlen=128, eval_seqlens=(128,), batch_size=32)]
    assert labels(grows) == ["hyena", "hyena"]
    assert labels([config(batch_size=128), config(batch_size=32)]) == [
        "hyena (batch_size=128)",
        "hyena (batch_size=32)",
    ]


def test_same_plugin_in_another_folder_is_the_same_operator() -> None:
    moved = [config(plugins={"a.py": "12345678ab"}), config(plugins={"b.py": "12345678ab"}, seed=1)]
    assert labels(moved) == ["hyena", "hyena"]
    edited = [config(plugins={"a.py": "12345678ab"}), config(plugins={"a.py": "ffffffffab"})]
    assert labels(edited) == ["hyena (plugins=12345678)", "hyena (plugins=ffffffff)"]


def test_trained_length_is_named_once_any_run_crosses_lengths() -> None:
    crossing = [config(eval_seqlens=(64, 128)), config("attention")]
    assert labels(crossing) == ["hyena, trained at 64", "attention, trained at 64"]
