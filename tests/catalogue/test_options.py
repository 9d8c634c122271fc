from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Optional

import numpy as np
import pytest
import torch

from mechbench.catalogue.options import parse_pairs, resolve_options
from mechbench.errors import ConfigError


class Component:
    def __init__(
        self,
        d_model: int,
        *,
        order: int = 2,
        rate: float = 0.5,
        flag: bool = False,
        mode: Literal["fast", "exact"] = "fast",
        size: Literal[1, 2] = 1,
        lr: float | None = None,
        old: Optional[int] = 3,  # noqa: UP045
        either: int | str = 1,
        tag: str = "a",
        bare=None,
    ) -> None: ...


def resolve(component: Any = Component, **given: Any) -> dict[str, Any]:
    return resolve_options(component, given, owner="operator 'x'", reserved=("d_model",))


@pytest.mark.parametrize(
    ("key", "given", "value"),
    [
        ("order", "3", 3),
        ("order", 4.0, 4),
        ("rate", "1e-3", 1e-3),
        ("rate", 2, 2.0),
        ("flag", "true", True),
        ("flag", "Off", False),
        ("flag", "1", True),
        ("flag", False, False),
        ("mode", "exact", "exact"),
        ("size", "2", 2),
        ("lr", "none", None),
        ("lr", None, None),
        ("lr", "3e-4", 3e-4),
        ("old", "7", 7),
        ("old", "None", None),
        ("either", "5", 5),
        ("either", "five", "five"),
        ("tag", "3", "3"),
        ("bare", "3", 3),
        ("bare", "x", "x"),
        ("bare", "true", True),
    ],
)
def test_values_take_the_annotated_type(key: str, given: Any, value: Any) -> None:
    found = resolve(**{key: given})[key]
    assert found == value
    assert type(found) is type(value)


def test_defaults_are_filled_in_sorted_and_reserved_names_left_out() -> None:
    found = resolve(order="3")
    assert list(found) == sorted(found)
    assert found["order"] == 3
    assert found["rate"] == 0.5
    assert "d_model" not in found
    assert len(found) == 10


@pytest.mark.parametrize(
    ("key", "given", "says"),
    [
        ("ordre", 1, "operator 'x' has no option 'ordre': did you mean 'order'"),
        ("d_model", 1, "has no option 'd_model'"),
        ("order", "two", "option 'order' of operator 'x' is 'two': expected a whole number"),
        ("order", "2.5", "expected a whole number"),
        ("order", 2.5, "expected a whole number"),
        ("order", True, "True: expected a whole number"),
        ("order", float("inf"), "inf: expected a whole number"),
        ("order", float("nan"), "nan: expected a whole number"),
        ("order", None, "None: expected a whole number"),
        ("rate", "x", "expected a number"),
        ("rate", False, "expected a number"),
        ("flag", "maybe", "expected true or false"),
        ("mode", "exakt", "is 'exakt': did you mean 'exact'"),
        ("size", "3", "choose from: 1, 2"),
        ("lr", "fast", "is 'fast': expected float or none"),
    ],
)
def test_bad_options_raise_and_say_what_is_expected(key: str, given: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        resolve(**{key: given})


def test_optional_choice_lists_its_choices() -> None:
    def build(d_model: int, mode: Literal["fast", "exact"] | None = None) -> None: ...

    assert resolve(build, mode="exact") == {"mode": "exact"}
    assert resolve(build, mode="none") == {"mode": None}
    with pytest.raises(ConfigError, match="fast"):
        resolve(build, mode="exakt")


def test_option_without_default_is_asked_for() -> None:
    def build(d_model: int, width: int) -> None: ...

    with pytest.raises(ConfigError, match="operator 'x' needs the option 'width': add width=VALUE"):
        resolve(build)


def test_factory_with_open_keywords_takes_anything_but_reserved_names() -> None:
    def build(d_model: int, width: int = 3, **rest: Any) -> None: ...

    found = resolve(build, width="4", alpha="0.5", on="true", name="x", n="none")
    assert found == {"alpha": 0.5, "n": None, "name": "x", "on": True, "width": 4}
    with pytest.raises(ConfigError, match="has no option 'd_model'"):
        resolve(build, d_model=3)


def test_fields_of_a_dataclass_are_options() -> None:
    @dataclass(frozen=True)
    class Task:
        d_model: int
        distance: int = 0

    assert resolve(Task, distance="12") == {"distance": 12}


def test_parse_pairs_splits_at_the_first_equals_sign() -> None:
    assert parse_pairs(["a=1", "b=x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}
    assert parse_pairs([]) == {}


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        (["order"], "--option 'order' is not of the form key=value"),
        (["=3"], "not of the form key=value"),
        (["a=1", "a=2"], "--option 'a' is given twice: '1' and '2'"),
    ],
)
def test_parse_pairs_refuses_what_is_unclear(pairs: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_pairs(pairs)


def test_parse_pairs_names_the_flag() -> None:
    with pytest.raises(ConfigError, match="--param 'x'"):
        parse_pairs(["x"], flag="--param")


class Lists:
    def __init__(
        self,
        d_model: int,
        *,
        sizes: list[int] = [1, 2],  # noqa: B006, as people write it
        shape: tuple[int, ...] = (3,),
        span: tuple[float, float] = (0.1, 1),
        names: Sequence[str] = ("a",),
        table: dict[str, int] | None = None,
        scale: float = 1,
        wide: Annotated[int, "channels"] = 4,
    ) -> None: ...


@pytest.mark.parametrize(
    ("key", "given", "value"),
    [
        ("sizes", "1,2,3", [1, 2, 3]),
        ("sizes", "[1, 2, 3]", [1, 2, 3]),
        ("sizes", (1, 2.0), [1, 2]),
        ("sizes", np.arange(3), [0, 1, 2]),
        ("sizes", "", []),
        ("shape", "4", (4,)),
        ("shape", [4, 5], (4, 5)),
        ("span", "0,1", (0.0, 1.0)),
        ("names", "a, b", ("a", "b")),
        ("names", '["a", "3"]', ("a", "3")),
        ("table", '{"a": 1}', {"a": 1}),
        ("table", {"a": 1.0}, {"a": 1}),
        ("table", "none", None),
        ("scale", np.float64(0.5), 0.5),
        ("scale", np.int32(2), 2.0),
        ("wide", "2e1", 20),
    ],
)
def test_lists_and_tables_are_typed_like_their_items(key: str, given: Any, value: Any) -> None:
    found = resolve(Lists, **{key: given})[key]
    assert found == value
    assert repr(found) == repr(value)


@pytest.mark.parametrize(
    ("key", "given", "says"),
    [
        ("sizes", "1,x", "is 'x': expected a whole number"),
        ("sizes", "[1, 2", r"is '\[1, 2': expected list\[int\], as 1,2,3 or \[1, 2, 3\]"),
        ("sizes", "[" * 100_000, "expected list"),
        ("sizes", 3, "is 3: expected list"),
        ("sizes", [10**30], "expected at most 9223372036854775807"),
        ("span", "1,2,3", "is '1,2,3': expected 2 values"),
        ("span", "1,nan", "is nan: expected a finite number"),
        ("table", "a", "option 'table' .* is 'a': expected dict"),
        ("table", [1], "expected dict"),
        ("scale", "nan", "expected a finite number"),
        ("scale", "1e999", "expected a finite number"),
        ("wide", 2**63, "expected at most 9223372036854775807"),
    ],
)
def test_lists_that_are_none_are_one_line(key: str, given: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as got:
        resolve(Lists, **{key: given})
    assert "\n" not in str(got.value)
    assert len(str(got.value)) < 300


def test_defaults_have_the_form_of_what_is_given() -> None:
    found = resolve(Lists)
    assert (found["scale"], type(found["scale"])) == (1.0, float)
    assert found == resolve(Lists, scale=1, sizes=[1, 2])
    found["sizes"].append(3)
    assert resolve(Lists)["sizes"] == [1, 2]


class Keeper:
    def __init__(
        self,
        d_model: int,
        act: Callable[[float], float] = abs,
        kind: type = int,
        dtype: torch.dtype = torch.float32,
        module: Any = math,
        missing: float = float("nan"),
        hook: Callable[[int], int] | None = None,
        width: int = 3,
    ) -> None: ...


def test_what_results_cannot_store_the_component_keeps_to_itself() -> None:
    assert resolve(Keeper) == {"hook": None, "width": 3}
    for name in ("act", "kind", "dtype", "module", "missing"):
        with pytest.raises(ConfigError, match=f"option '{name}' of operator 'x' cannot be set"):
            resolve(Keeper, **{name: "relu"})
    assert resolve(Keeper, hook="none") == resolve(Keeper)
    for value in ("relu", abs):
        with pytest.raises(ConfigError, match=r"option 'hook' of operator 'x' is .*: expected "):
            resolve(Keeper, hook=value)


def test_an_option_without_default_whose_type_no_result_stores_is_one_line() -> None:
    def build(d_model: int, dtype: torch.dtype) -> None: ...

    with pytest.raises(ConfigError, match="expected a dtype, which no result can store"):
        resolve(build, dtype="float32")


def test_annotations_that_do_not_evaluate_do_not_matter() -> None:
    def build(d_model: int, width: np.nothing = 3) -> None: ...  # type: ignore[name-defined]

    assert resolve(build, width="4") == {"width": 4}


def test_fields_with_a_factory_are_options() -> None:
    @dataclass(frozen=True)
    class Task:
        d_model: int
        sizes: list[int] = field(default_factory=lambda: [1])

    assert resolve(Task) == {"sizes": [1]}
    assert resolve(Task, sizes="2,3") == {"sizes": [2, 3]}
