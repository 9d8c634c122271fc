from __future__ import annotations

from typing import Any

import pytest

from mechbench.catalogue.registry import register_task
from mechbench.record.config import Config
from mechbench.report.labels import called, texts
from mechbench.report.labels import labels as labels_of
from mechbench.report.rows import identity


def labels(configs: list[Config]) -> list[str]:
    return labels_of(configs, [identity(config) for config in configs])


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


def test_short_convolution_is_told_apart_at_any_length() -> None:
    given = [config(), config(seqlen=128, eval_seqlens=(128,), short_conv=4)]
    assert labels(given) == ["hyena (short_conv=0)", "hyena (short_conv=4)"]


def test_same_plugin_in_another_folder_is_the_same_operator() -> None:
    moved = [config(plugins={"a.py": "12345678ab"}), config(plugins={"b.py": "12345678ab"}, seed=1)]
    assert labels(moved) == ["hyena", "hyena"]
    edited = [config(plugins={"a.py": "12345678ab"}), config(plugins={"a.py": "ffffffffab"})]
    assert labels(edited) == ["hyena (plugins=12345678)", "hyena (plugins=ffffffff)"]


def test_trained_length_is_named_where_runs_of_several_cross_lengths() -> None:
    crossing = [config(eval_seqlens=(64, 128)), config("attention", seqlen=128)]
    assert labels(crossing) == ["hyena, trained at 64", "attention, trained at 128"]
    assert labels([*crossing[:1], config("attention")]) == ["hyena", "attention"]


def test_what_follows_from_an_option_is_not_named_beside_it() -> None:
    given = [config(), config(operator_options={"filter_time": "absolute"}, max_seqlen=66)]
    assert all("max_seqlen" not in label for label in labels(given))
    alone = [config(), config(max_seqlen=66)]
    assert labels(alone) == ["hyena (max_seqlen=0)", "hyena (max_seqlen=66)"]


def test_numbers_have_the_digits_that_tell_them_apart() -> None:
    rates = [config(lr=0.001), config(lr=0.0010000004), config(lr=0.004)]
    assert labels(rates) == ["hyena (lr=0.001)", "hyena (lr=0.0010000004)", "hyena (lr=0.004)"]
    assert list(texts([0.1, 0.2, 1 / 3]).values()) == ["0.1", "0.2", "0.333333"]
    assert list(texts([0.1, 0.1 + 2**-56, None]).values()) == [
        "0.1", "0.10000000000000002", "none"
    ]  # fmt: skip


def test_values_that_print_the_same_are_told_apart_by_their_type() -> None:
    given = [config(operator_options={"x": x}) for x in (1, "1", None, "none", True, "true")]
    assert len(set(labels(given))) == 6
    assert labels(given)[:3] == ["hyena (x=1)", 'hyena (x="1")', "hyena (x=null)"]
    assert labels([config(operator_options={"x": None}), config()]) == ["hyena (x=none)", "hyena"]


def test_code_is_told_apart_at_any_length() -> None:
    digests = ["0123456789abcdef" + "0" * 48, "fedcba9876543210" + "0" * 48]
    code = [
        config("mine", sources={"helper": digests[0], "fla": "0.4.1", "numpy": "2.1"}),
        config("mine", sources={"helper": digests[1], "fla": "0.5", "numpy": "2.1"}, seqlen=128),
    ]
    assert [label.partition(", trained")[0] for label in labels(code)] == [
        "mine (fla=0.4.1, helper=01234567)", "mine (fla=0.5, helper=fedcba98)"
    ]  # fmt: skip


def test_no_two_experiments_share_a_label() -> None:
    digests = ["01234567" + "0" * 56, "01234567" + "1" * 56]  # of one beginning
    configs = [config("mine", plugins={"a.py": digest}) for digest in digests]
    configs += [config("hyena", operator_options={"a": 1}), config("hyena")]
    configs += [config("hyena (a=1)")]
    assert len(set(labels(configs))) == 5
    assert labels([configs[0], configs[0]]) == ["mine", "mine"]
    assert labels([config(), config(allow_noncausal=True)]) == ["hyena", "hyena"]


def test_models_built_for_more_tokens_are_others() -> None:
    assert labels([config(), config(max_seqlen=128)]) == [
        "hyena (max_seqlen=0)", "hyena (max_seqlen=128)"
    ]  # fmt: skip


@pytest.mark.usefixtures("clean_registry")
def test_a_built_in_task_has_its_own_word_for_vocab_size() -> None:
    assert called("vocab_size", "icl-functions") == "dimensions"
    assert called("d_model", "icl-functions") == "d_model"
    assert called("vocab_size", "recall") == "vocab_size"
    assert called("vocab_size", "no task here") == "vocab_size"
    plugin = type("Plugin", (), {"vocab_name": "symbols"})
    register_task("a-plugin")(plugin)  # may be there today and not tomorrow
    assert called("vocab_size", "a-plugin") == "vocab_size"
