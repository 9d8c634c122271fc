from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mechbench.catalogue.bounds import EVALUATION
from mechbench.catalogue.settings import (
    check_call,
    check_options,
    check_product,
    path_of,
    setting,
    settings,
    shown,
    storable,
    stored,
)
from mechbench.errors import ConfigError


class Colour(enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    SMALL = 3


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("seed", np.int64(3), 3),
        ("seed", torch.tensor(3), 3),
        ("seed", 3.0, 3),
        ("seed", Size.SMALL, 3),
        ("budget_tokens", 2e4, 20000),
        ("budget_tokens", np.float64(2e4), 20000),
        ("budget_tokens", "20M", 20_000_000),
        ("budget_tokens", "1.5 B", 1_500_000_000),
        ("budget_sequences", "96k", 96_000),
        ("lr", 1, 1.0),
        ("lr", np.float32(0.5), 0.5),
        ("lr", torch.tensor(0.5), 0.5),
        ("lr", 1e-3, 1e-3),
        ("device", torch.device("cuda", 1), "cuda:1"),
        ("task", np.str_("recall"), "recall"),
        ("allow_noncausal", np.bool_(True), True),
        ("eval_seqlens", [64, 128.0], (64, 128)),
        ("eval_seqlens", np.array([64, 128]), (64, 128)),
        ("eval_seqlens", {64}, (64,)),
        ("seed", 2**63 - 1, 2**63 - 1),
    ],
)
def test_what_means_the_same_is_the_same(name: str, given: Any, value: Any) -> None:
    for found in (setting(name, given), settings({name: given, "protocol": 2})[name]):
        assert found == value
        assert type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("seed", 1.5, "seed is 1.5: expected a whole number"),
        ("seed", -1, "seed is -1: expected 0 or more"),
        ("seed", True, "seed is True: expected a whole number"),
        ("seed", "1", "seed is '1': expected a whole number"),
        ("seed", None, "seed is None: expected a whole number"),
        ("seed", 2**63, "seed is 9223372036854775808: expected at most 9223372036854775807"),
        ("d_model", "64", "d_model is '64': expected a whole number"),
        ("n_layers", 2**31, "n_layers is 2147483648: expected at most 128"),
        ("n_test", 1e25, "n_test is 1e\\+25: expected at most"),
        pytest.param("n_test", 10**5000, "n_test is a number of 16610 bits: expected", id="vast"),
        ("batch_size", 0, "batch_size is 0: expected at least 1"),
        ("lr", 1e308, "lr is 1e\\+308: expected at most 1e"),
        ("lr", True, "lr is True: expected a number"),
        ("lr", float("nan"), "lr is nan: expected a positive number"),
        ("grad_clip", -1, "grad_clip is -1: expected a positive number"),
        ("grad_clip", float("nan"), "grad_clip is nan: expected a positive number"),
        ("checkpoint_s", float("nan"), "checkpoint_s is nan: expected 0 or more"),
        ("weight_decay", float("inf"), "weight_decay is inf: expected 0 or more"),
        ("operator", 3, "operator is 3: expected a text"),
        ("operator_options", ["order"], r"operator_options is \['order'\]: expected a mapping"),
        ("operator_options", {1: 2}, "expected a mapping of names to values"),
        ("eval_seqlens", 64, "eval_seqlens is 64: expected a list of lengths"),
        ("eval_seqlens", "64", "eval_seqlens is '64': expected a list of lengths"),
        ("eval_seqlens", [64, 1.5], "expected a list of lengths"),
        ("resume", "no", "resume is 'no': expected true or false"),
    ],
)
def test_what_is_wrong_is_one_line(name: str, given: Any, says: str) -> None:
    for refused in (setting, lambda n, v: settings({n: v, "protocol": 2})):
        with pytest.raises(ConfigError, match=says) as got:
            refused(name, given)
        assert "\n" not in str(got.value)
        assert len(str(got.value)) < 200


def test_settings_of_the_call_are_checked() -> None:
    good: dict[str, Any] = {
        "out": Path("runs"), "checkpoint_s": 0,
        "data_parallel": 1, "resume": True, "quiet": None,
    }  # fmt: skip
    check_call(**good)
    for name, value, says in (
        ("out", 3, "out is 3: expected a path"),
        ("checkpoint_s", -1, "checkpoint_s is -1: expected 0 or more"),
        ("data_parallel", 0, "data_parallel is 0: expected at least 1"),
        ("resume", 1, "resume is 1: expected true or false"),
        ("quiet", "yes", "quiet is 'yes': expected true or false"),
    ):
        with pytest.raises(ConfigError, match=says):
            check_call(**{**good, name: value})


def test_options_of_ours_have_bounds_and_none_passes() -> None:
    check_options(chunk=64, filter_lr=None, window=np.int64(3))
    for name, value, says in (
        ("chunk", 0, "chunk is 0: expected at least 1"),
        ("filter_width", 0, "filter_width is 0: expected at least 1"),
        ("filter_layers", 2**31, "filter_layers is 2147483648: expected at most"),
        ("rotary_base", float("nan"), "rotary_base is nan: expected 0 or more"),
        ("fast_decay", 0.0, "fast_decay is 0.0: expected a positive number"),
    ):
        with pytest.raises(ConfigError, match=says):
            check_options(**{name: value})


def test_sizes_that_are_fine_alone_may_be_too_many_together() -> None:
    check_product(EVALUATION, n_test=2048, tokens=131_072)
    with pytest.raises(ConfigError) as got:
        check_product(EVALUATION, n_test=2**24, tokens=2**24)
    assert str(got.value).startswith(
        "n_test 16777216 x tokens 16777216 gives 281474976710656 tokens to score: expected at most "
    )


def test_stored_values_have_one_form() -> None:
    given = {"a": (1, [np.float64(0.5), np.int32(2)]), "b": {"c": None}, "d": Colour.RED}
    found = stored(given, "x")
    assert found == {"a": [1, [0.5, 2]], "b": {"c": None}, "d": "red"}
    assert [type(v) for v in found["a"][1]] == [float, int]
    assert stored(np.arange(3), "x") == [0, 1, 2]


@pytest.mark.parametrize(
    "value", [print, int, torch.float32, torch, float("nan"), [float("inf")], {1: 2}, {1}, b"x"]
)
def test_what_json_does_not_hold_is_refused(value: Any) -> None:
    assert not storable(value)
    with pytest.raises(ConfigError, match=r"option 'act' is .*since results store it"):
        stored(value, "option 'act'")


def test_values_are_shown_short_and_in_one_line() -> None:
    assert shown("a\nb") == r"'a\nb'"
    assert "\n" not in shown(torch.zeros(3, 3))
    assert len(shown("x" * 1000)) == 60

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    assert shown(Broken()) == "a Broken"


@pytest.mark.parametrize("value", ["a", Path("a/b"), "", "a\nb"])
def test_what_names_a_file_is_a_path(value: str | Path) -> None:
    assert path_of("out", value) == Path(value)


def test_a_path_may_begin_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert path_of("out", "~/runs") == Path("/home/ada/runs")
    assert path_of("out", "~nobody-at-all/runs") == Path("~nobody-at-all/runs")
    assert path_of("out", "a/~") == Path("a/~")


@pytest.mark.parametrize("value", [None, 1, 1.5, b"a", "a\0b", "\ud800", ["a"], Path, object()])
def test_what_no_file_is_called_is_no_path(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^out is .*: expected a path$"):
        path_of("out", value)


@pytest.mark.parametrize(
    ("name", "given"), [("seqlen", "1K"), ("budget_tokens", "20MB"), ("budget_tokens", "-1M")]
)
def test_suffixes_are_of_budgets_alone(name: str, given: str) -> None:
    """A K of tokens would be 1,000 and one of lengths 1,024."""
    with pytest.raises(ConfigError, match=f"{name} is '{given}': expected a whole number"):
        setting(name, given)
