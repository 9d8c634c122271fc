from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mechbench.catalogue.fingerprint import Fingerprint, fingerprint
from mechbench.catalogue.sources import UNKNOWN

Cell = Callable[..., Any]
BODY = """
import torch
from torch import nn

class Base(nn.Module):
    WIDTH = 2

class Mine(Base):
    def __init__(self, d_model, max_seqlen, *, a: int = 1):
        super().__init__()
        self.a = a

    def forward(self, u):
        return helper(u) * SCALE * self.a

    @property
    def twice(self):
        return 2 * self.a

def helper(u):
    return u + len(TABLE["x"])

SCALE = 2.0
TABLE = {"x": (1, 2), "y": [None, {3}]}
"""


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Cell:
    """Execute text as a notebook's cells, all in one module without a file; return `Mine`."""

    def typed(*cells: str, name: str = "Mine", module: str = "in_a_notebook") -> Any:
        made = types.ModuleType(module)
        monkeypatch.setitem(sys.modules, module, made)
        for text in cells:
            exec(compile(text, "<cell>", "exec"), made.__dict__)
        return getattr(made, name)

    return typed


def test_what_a_class_says_of_its_source_does_not_count(typed: Cell) -> None:
    said = BODY + "from mechbench.operators.fidelity import Fidelity\n"
    said += "Mine.fidelity = (Fidelity('itself', 1e-15),)\n"
    assert fingerprint(typed(said)).digest == fingerprint(typed(BODY)).digest


def test_same_text_gives_the_same_wherever_it_stands(typed: Cell) -> None:
    read = fingerprint(typed(BODY))
    one = read.digest
    assert len(one) == 64
    assert fingerprint(typed("# a comment\n\n" + BODY)).digest == one
    half = BODY.index("def helper")
    assert fingerprint(typed(BODY[half:], BODY[:half])).digest == one
    assert "in_a_notebook" not in read.modules


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("* self.a", "+ self.a"),
        ("SCALE = 2.0", "SCALE = 3.0"),
        ("WIDTH = 2", "WIDTH = 3"),
        ("a: int = 1", "a: int = 2"),
        ("u + len", "u - len"),
        ('"x": (1, 2)', '"x": (1, 3)'),
        ("{3}", "{4}"),
        ("2 * self.a", "3 * self.a"),
        ("class Mine(Base)", "class Mine(nn.Module)"),
        ("class Base(nn.Module)", "class Base(nn.Linear)"),
    ],
)
def test_any_edit_that_is_reached_gives_another(typed: Cell, old: str, new: str) -> None:
    one = fingerprint(typed(BODY)).digest
    edited = BODY.replace(old, new)
    assert edited != BODY
    other = fingerprint(typed(edited)).digest
    assert other not in (one, UNKNOWN)


def test_what_is_not_reached_does_not_count(typed: Cell) -> None:
    one = fingerprint(typed(BODY)).digest
    assert fingerprint(typed(BODY + "OTHER = object()\ndef unused(): return OTHER\n")).digest == one


def test_factories_and_closures_count_by_what_they_hold(typed: Cell) -> None:
    text = """
import functools
def make(k, size=1):
    class Mine:
        def forward(self, u): return u * k
    return Mine
def plain(a, b): return a
One, Two, Again = make(1), make(2), make(1)
P, Q, R = (functools.partial(plain, a) for a in (1, 2, 1))
"""
    names = ("One", "Two", "Again", "P", "Q", "R")
    one, two, again, p, q, r = (fingerprint(typed(text, name=name)).digest for name in names)
    assert one == again != two
    assert p == r != q


def test_modules_that_are_reached_are_named(typed: Cell) -> None:
    text = """
import json
from tomllib import loads
class Mine:
    def f(self): return json.dumps(loads(""))
    def g(self): import fractions; return fractions
"""
    assert {"json", "fractions"} <= fingerprint(typed(text)).modules
    assert any(name.startswith("tomllib") for name in fingerprint(typed(text)).modules)


@pytest.mark.parametrize(
    "value", ["object()", "torch.ones(2)", "[1, object()]", "{'a': torch.ones(1)}"]
)
def test_object_that_no_file_tells_of_is_unknown(typed: Cell, value: str) -> None:
    text = f"import torch\nSTATE = {value}\nclass Mine:\n    def f(self): return STATE\n"
    assert fingerprint(typed(text)).digest == UNKNOWN


@pytest.mark.parametrize(
    "value", ["torch.float32", "torch.device('cpu')", "len", "nn.Linear", "Colour.RED", "loop"]
)
def test_what_names_itself_is_known(typed: Cell, value: str) -> None:
    text = (
        "import enum, torch\nfrom torch import nn\nclass Colour(enum.Enum): RED = 1\n"
        f"def loop(): return loop\nSTATE = {value}\nclass Mine:\n    def f(self): return STATE\n"
    )
    assert fingerprint(typed(text)).digest != UNKNOWN


def test_dataclass_counts_by_its_fields_and_methods(typed: Cell) -> None:
    text = """
from dataclasses import dataclass, field
@dataclass(frozen=True)
class Mine:
    size: int = 1
    names: list = field(default_factory=list)
    def sample(self): return self.size
"""
    one = fingerprint(typed(text)).digest
    assert one != UNKNOWN
    assert fingerprint(typed(text)).digest == one
    for old, new in (("= 1", "= 2"), ("factory=list", "factory=set"), ("self.size", "self.names")):
        assert fingerprint(typed(text.replace(old, new))).digest not in (one, UNKNOWN)


def test_class_that_exec_made_without_a_module_is_read_too(typed: Cell) -> None:
    def made(text: str) -> Any:
        names: dict[str, Any] = {}
        exec(text, names)
        return names["Mine"]

    text = "class Mine:\n    def f(self): return g()\ndef g(): return 1\n"
    assert made(text).__module__ == "builtins"
    one = fingerprint(made(text)).digest
    assert one == fingerprint(made(text)).digest != UNKNOWN
    assert fingerprint(made(text.replace("return 1", "return 2"))).digest != one


def test_of_a_module_with_a_file_only_values_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of(text: str, loop: int) -> Fingerprint:
        path = tmp_path / "with_a_file.py"
        path.write_text(text)
        module = types.ModuleType("with_a_file")
        module.__file__ = str(path)
        monkeypatch.setitem(sys.modules, "with_a_file", module)
        module.loop = loop  # type: ignore[attr-defined]
        exec(compile(text, str(path), "exec"), module.__dict__)
        return fingerprint(module.Mine)  # type: ignore[attr-defined]

    text = "S = object()\nclass Mine:\n    def f(self): return S, loop\n"
    one = of(text, 1).digest
    assert of(text, 1).told
    assert not of("exec('class Mine:\\n    def f(self): return 1')\n", 1).told
    assert "with_a_file" in of(text, 1).modules  # whose text is left to `sources`
    assert of(text.replace("S, loop", "loop, S"), 1).digest == one != UNKNOWN
    assert of(text, 2).digest != one
    wrapped = "import torch\nclass Mine:\n    @torch.no_grad()\n    def f(self): return 1\n"
    assert of(wrapped, 1).told  # though the wrapper is torch's
    by_exec = "exec('class Mine:\\n    def f(self): return 1')\n"
    assert of(by_exec, 1).digest != of(by_exec.replace("return 1", "return 2"), 1).digest
