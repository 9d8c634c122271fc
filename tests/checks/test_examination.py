from __future__ import annotations

import json
from pathlib import Path

import pytest

from checks.broken_operators import Noncausal, WrongShape
from mechbench.catalogue.registry import register_operator
from mechbench.checks.examination import Examination, check_operator, store
from mechbench.checks.subject import Finding, Subject
from mechbench.errors import ConfigError

pytestmark = pytest.mark.usefixtures("clean_registry")


def test_page_of_a_sound_operator(tmp_path: Path) -> None:
    examination = check_operator("hyena", {"order": "3"}, d_model=8, seqlen=16)
    assert examination.sound
    text = examination.text()
    assert text.startswith("hyena, order=3: d_model 8, seqlen 16, cpu\n")
    assert text.endswith("PASS: a sound operator")
    columns = {line.index("  ", 9) for line in text.split("\n") if line.startswith("  PASS")}
    assert columns
    path = store(examination, tmp_path / "new")
    assert path == tmp_path / "new" / "check.json"
    data = json.loads(path.read_text())
    assert data["sound"] is True
    assert data["options"]["order"] == 3
    assert [finding["name"] for finding in data["properties"]] == [
        "data control",
        "sublinear parameters",
        "unrestricted context",
    ]
    assert {finding["verdict"] for finding in data["soundness"]} == {"PASS"}
    assert [finding["name"] for finding in data["growth"]] == ["memory", "time"]


def test_texts_of_a_section_stand_in_one_column() -> None:
    findings = [
        Finding("a", "PASS", "text"),
        Finding("a long name", "no", "text"),
        Finding("b", "", "text"),
    ]
    examination = Examination(Subject("x", {}, 8, 8, "cpu"), {}, {"soundness": findings})
    shown = [line for line in examination.text().split("\n") if line.endswith(" text")]
    assert {line.index("text") for line in shown} == {21}


def test_fault_is_in_the_verdict_and_a_wrong_shape_ends_it() -> None:
    register_operator("ahead")(Noncausal)
    examination = check_operator("ahead", {}, d_model=8, seqlen=16)
    assert not examination.sound
    assert examination.text().endswith(
        "FAIL: causal by value, causal by gradient, causal once trained"
    )
    register_operator("shape")(WrongShape)
    examination = check_operator("shape", {}, d_model=8, seqlen=16)
    assert list(examination.sections) == ["soundness"]
    assert examination.text().endswith("FAIL: shape and dtype")


def test_what_is_missing_is_an_error_not_a_page() -> None:
    with pytest.raises(ConfigError, match="did you mean 'order'"):
        check_operator("hyena", {"ordre": 2})
