from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest

import mechbench
from mechbench.cli.arguments import Setting
from mechbench.errors import ConfigError
from mechbench.record.results import read_result
from tests.cli.conftest import TINY, call


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("seed", "3", 3),
        ("budget_tokens", "2e4", 20000),
        ("lr", "1e-3", 1e-3),
        ("lr", "1", 1.0),
    ],
)
def test_texts_are_read(name: str, text: str, value: Any) -> None:
    found = Setting(name).convert(text, None, None)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "flag", "given", "text"),
    [
        ("seed", "--seed", 1.5, "1.5"),
        ("seed", "--seed", -1, "-1"),
        ("seed", "--seed", 2**63, str(2**63)),
        ("d_model", "--d-model", "many", "many"),
        ("batch_size", "--batch-size", 0, "0"),
        ("n_layers", "--n-layers", 2**31, str(2**31)),
        ("short_conv", "--short-conv", 2**31, str(2**31)),
        ("n_test", "--test-examples", 10**25, str(10**25)),
        ("lr", "--lr", 1e308, "1e308"),
        ("lr", "--lr", float("nan"), "nan"),
        ("checkpoint_s", "--checkpoint-every", float("nan"), "nan"),
        ("checkpoint_s", "--checkpoint-every", -1.0, "-1"),
        ("data_parallel", "--data-parallel", 0, "0"),
    ],
)
def test_the_command_line_and_python_refuse_in_the_same_words(
    name: str,
    flag: str,
    given: Any,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ConfigError) as got:
        mechbench.run("hyena", "recall", **{name: given})
    assert call(monkeypatch, "run", "--operator", "hyena", "--task", "recall", flag, text) == 2
    assert capsys.readouterr().err == f"mechbench: error: {got.value}\n"


def test_a_run_has_the_short_convolution_that_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = (
        "run", "--operator", "attention", "--task", "recall", *TINY, "--short-conv", "3",
        "--eval-seqlen", "16", "--out", str(tmp_path), "--quiet",
    )  # fmt: skip
    assert call(monkeypatch, *args) == 0
    assert "2 layers, short_conv 3, seed 0" in capsys.readouterr().out
    (path,) = tmp_path.rglob("result.json")
    result = read_result(path).data
    assert (result["config"]["short_conv"], result["status"], result["causal"]) == (3, "ok", True)


@pytest.mark.parametrize(
    "args",
    [
        ("-h", "run"), ("-h", "list"), ("-h",), ("run", "-h", "--operator", "x"),
        ("leaderboard", "-h"), ("-h", "leaderboard", "build"), ("list", "-h"), (),
    ],
)  # fmt: skip
def test_help_before_a_name_is_help(
    args: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:

    assert call(monkeypatch, *args) == 0
    assert re.search(r"Usage: \S+", capsys.readouterr().out)


def test_help_names_the_kind_of_number() -> None:
    @click.command()
    @click.option("--seed", type=Setting("seed"))
    @click.option("--lr", type=Setting("lr"))
    def command(seed: int, lr: float) -> None: ...

    text = command.get_help(click.Context(command))
    assert "--seed INTEGER" in text
    assert "--lr FLOAT" in text


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("show", "recall", "--task-option", "seqlen=3"), "'seqlen' is not an option of the task"),
        (("show", "recall", "--task-option", "name=3"), "no parameter 'name'"),
        (("show", "recall", "--examples", "1e25"), "examples is 1e+25: expected at most"),
        (("show", "recall", "--seed", str(2**63)), f"seed is {2**63}: expected at most"),
        (("bench", "--operator", "hyena", "--repeats", "0"), "repeats is 0: expected at least 1"),
        (("check", "--operator", "hyena", "--seqlen", "1"), "seqlen is 1: expected at least 2"),
        (("check", "--operator", "hyena", "--seqlen", "1e7"), "numbers in an input: expected at"),
        (("inspect", "--operator", "hyena", "--seqlen", "9999"), "seqlen is 9999: expected 2 to"),
        (("inspect", "--operator", "hyena", "--d-model", "8e3", "--seqlen", "1024"), "H(u)"),
        (("watch", "--once", "--every", "nan"), "every_s is nan: expected at least 0.1"),
    ],
)
def test_sizes_of_every_command_have_bounds(
    args: tuple[str, ...],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch, *args) == 2
    said = capsys.readouterr().err
    assert said.startswith("mechbench: error: ")
    assert says in said
    assert said.count("\n") == 1
