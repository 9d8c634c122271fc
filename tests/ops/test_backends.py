from __future__ import annotations

from typing import get_args

import pytest
import torch

from mechbench.errors import ConfigError
from mechbench.ops import used
from mechbench.ops.backends import BackendName, choose, pick
from mechbench.ops.marks import COUNTED
from mechbench.ops.used import ops_used

X = torch.zeros(2)
KNOWN = {"fast": lambda: "no GPU", "plain": lambda: None, "other": lambda: "not installed"}


@pytest.fixture(autouse=True)
def _own_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(used, "_USED", {})


def test_auto_takes_the_first_that_can_run() -> None:
    assert choose("op", X, "auto", KNOWN) == "plain"
    assert choose("op", X, "auto", KNOWN | {"fast": lambda: None}) == "fast"
    with pytest.raises(ConfigError, match=r"^no op backend can run: fast: no GPU; other: not inst"):
        choose("op", X, "auto", {key: KNOWN[key] for key in ("fast", "other")})


def test_one_named_runs_or_says_why_not() -> None:
    assert choose("op", X, "plain", KNOWN) == "plain"
    with pytest.raises(ConfigError, match=r"^op backend 'other' cannot run: not installed$"):
        choose("op", X, "other", KNOWN)
    with pytest.raises(ConfigError, match=r"^unknown op backend 'otter': did you mean 'other'"):
        choose("op", X, "otter", KNOWN)


def test_on_the_meta_device_any_name_is_auto() -> None:
    meta = X.to("meta")
    assert choose("op", meta, "other", KNOWN) == "plain"
    with pytest.raises(ConfigError, match="unknown op backend"):
        choose("op", meta, "otter", KNOWN)


def test_where_flops_are_counted_any_name_is_auto() -> None:
    with COUNTED:
        assert choose("op", X, "other", KNOWN) == "plain"


@pytest.mark.parametrize(
    ("backend", "triton", "fla", "name"),
    [
        ("auto", None, None, "triton"),
        ("auto", "no GPU", None, "torch"),
        ("torch", None, None, "torch"),
        ("fla", None, None, "fla"),
    ],
)
def test_what_is_picked_is_recorded(
    backend: str, triton: str | None, fla: str | None, name: str
) -> None:
    assert pick("op", X, backend, triton=lambda: triton, fla=lambda: fla) == name
    assert ops_used("cpu") == {"op": name}


def test_what_cannot_run_is_not_recorded() -> None:
    for backend in ("triton", "fla", "flaa"):
        with pytest.raises(ConfigError):
            pick("op", X, backend, triton=lambda: "no", fla=lambda: "no")
    assert ops_used("cpu") == {}


def test_a_reason_is_asked_only_of_what_may_be_taken() -> None:
    """Importing the package to learn that it is not wanted would take seconds."""

    def never() -> str | None:
        raise AssertionError

    assert pick("op", X, "auto", triton=lambda: "no", fla=never) == "torch"


def test_names_are_those_of_the_options() -> None:
    for name in get_args(BackendName):
        pick("op", X, name, triton=lambda: None, fla=lambda: None)
