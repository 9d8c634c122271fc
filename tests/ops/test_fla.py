from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any

import pytest
import torch

from mechbench.ops import fla


def versioned(patch: pytest.MonkeyPatch, version: str) -> None:
    made = ModuleType("triton")
    made.__version__ = version  # type: ignore[attr-defined]
    patch.setitem(sys.modules, "triton", made)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    told = "the package flash-linear-attention is not installed: pip install 'mechbench[fla]'"
    assert fla.missing.__wrapped__() == told


def test_a_package_that_does_not_load_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str) -> Any:
        raise ImportError("no triton\nof that version")

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(importlib, "import_module", broken)
    told = "flash-linear-attention does not load: no triton of that version"
    assert fla.missing.__wrapped__() == told


def test_the_package_is_asked_for_before_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fla, "missing", lambda: "not there")
    assert fla.refused(torch.zeros(2)) == "not there"
    monkeypatch.setattr(fla, "missing", lambda: None)
    monkeypatch.setattr(fla, "unavailable", lambda *_: "on cpu")
    assert fla.refused(torch.zeros(2), decays=True) == "on cpu"


@pytest.mark.parametrize(
    ("version", "capability", "wrong"),
    [
        ("3.3.1", (9, 0), False),
        ("3.4.0", (9, 0), True),
        ("3.6.0+git1", (9, 0), True),
        ("3.7.0", (9, 0), True),
        ("3.7.1", (9, 0), False),
        ("3.10.0", (9, 0), False),
        ("3.6.0", (8, 0), False),
        ("3.6.0", (10, 0), False),
    ],
)
def test_kernels_that_would_be_wrong_are_refused(
    monkeypatch: pytest.MonkeyPatch, version: str, capability: tuple[int, int], wrong: bool
) -> None:
    versioned(monkeypatch, version)
    told = fla._miscompiled(capability)
    assert told is None or (version in told and told.endswith("expected Triton 3.7.1 or later"))
    assert (told is not None) == wrong
