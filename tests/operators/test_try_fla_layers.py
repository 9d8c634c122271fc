"""scripts/try_fla_layers.py, with a stand-in for the command line."""

from __future__ import annotations

import json
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click.testing
import pytest

import mechbench

ROOT = Path(mechbench.__file__).parent.parent
RESULT = next(iter(sorted((ROOT / "leaderboards/first-release/results").glob("*/result.json"))))
COMMAND = """import json, os, pathlib, shutil, sys, time
name = sys.argv[sys.argv.index("--operator") + 1]
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
assert os.environ["CUDA_VISIBLE_DEVICES"] in ("3", "5")
if name == "fla:Slow":
    time.sleep(60)
if name == "fla:Refused":
    sys.exit("Loading\\nmechbench: error: it needs | a friend\\nBye")
if sys.argv[1] == "check":
    out.mkdir(parents=True)
    bad = name == "fla:Bad"
    failed = {"name": "repeats agree", "verdict": "FAIL", "text": "moved by 1"}
    found = {"sound": not bad, "soundness": [failed] * (2 * bad), "provenance": {"device": "G"}}
    (out / "check.json").write_text(json.dumps(found))
    sys.exit(int(bad))
if name == "fla:Bad":
    sys.exit("Traceback\\nboom")
(out / "cell").mkdir(parents=True)
shutil.copy(RESULT, out / "cell" / "result.json")
"""

Script = dict[str, Any]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Return the script's names, with three layers and a stand-in for the command."""
    command = tmp_path / "command.py"
    command.write_text(f"RESULT = {str(RESULT)!r}\n{COMMAND}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    found = runpy.run_path(str(ROOT / "scripts" / "try_fla_layers.py"))
    names = found["main"].callback.__globals__
    names["MECHBENCH"] = (sys.executable, str(command))
    names["SEQLEN"] = json.loads(RESULT.read_text())["config"]["seqlen"]
    names["layers"] = lambda: ["fla:Bad", "fla:Good", "fla:Refused"]
    return names


@pytest.fixture
def call(script: Script, tmp_path: Path) -> Callable[..., str]:
    def call(*arguments: str) -> str:
        given = ["--out", str(tmp_path / "out"), "--page", str(tmp_path / "page.md"), *arguments]
        done = click.testing.CliRunner().invoke(script["main"], given, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    return call


def test_every_layer_gets_a_row_that_says_why(call: Callable[..., str], tmp_path: Path) -> None:
    said = call("--jobs", "2")
    assert "1 of 3 layers" in said
    page = (tmp_path / "page.md").read_text()
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `fla:")}
    assert list(rows) == ["fla:Bad", "fla:Good", "fla:Refused"]
    assert "| repeats agree: moved by 1 (and 1 more) | boom |" in rows["fla:Bad"]
    assert r"| it needs \| a friend | the same |  |" in rows["fla:Refused"]
    data = json.loads(RESULT.read_text())
    scored = data["evaluations"][0]
    assert f"| passed | {scored['accuracy']:.3f} [" in rows["fla:Good"]
    assert f"({data['chance']:.3f}) | {data['tokens_per_s']:,.0f} |" in rows["fla:Good"]
    assert f"torch {__import__('torch').__version__}" in page
    assert ", G." in page  # the GPU


def test_second_call_goes_on_with_what_is_missing(
    call: Callable[..., str], script: Script, tmp_path: Path
) -> None:
    lines = tmp_path / "out" / "layers.jsonl"
    call("--layer", "fla:Good")
    assert "(2 are still to be tried)" in (tmp_path / "page.md").read_text()
    with lines.open("a") as stream:
        stream.write('{"layer": "fla:Refu')  # interrupted
    lines.write_text(lines.read_text() + "\n")
    call()
    layers = [json.loads(x)["layer"] for x in lines.read_text().splitlines() if x.endswith("}")]
    assert sorted(layers) == ["fla:Bad", "fla:Good", "fla:Refused"]
    call()
    assert len(lines.read_text().splitlines()) == 4
    call("--again")
    assert len(lines.read_text().splitlines()) == 6
    assert (tmp_path / "page.md").read_text().count("| `fla:") == 3


def test_what_is_slow_is_ended(call: Callable[..., str], script: Script, tmp_path: Path) -> None:
    script["layers"] = lambda: ["fla:Good", "fla:Slow"]
    start = time.monotonic()
    said = call("--stop-after", "5")
    assert "1 layers are left" in said
    assert not script["RUNNING"]
    call("--limit", "1")
    assert time.monotonic() - start < 50
    assert "| not examined within 1 s | not trained within 1 s |" in (
        (tmp_path / "page.md").read_text()
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "nothing was printed"),
        ("a\n\n  b  c\n", "b c"),
        ("ValueError: first\ntorch.AcceleratorError: CUDA error: x\nFor debugging\n", None),
        ("mechbench: error: told\nKeyError: 'a'\n", "told"),
    ],
)
def test_last_words_are_the_error(text: str, words: str | None) -> None:
    last_words = runpy.run_path(str(ROOT / "scripts" / "try_fla_layers.py"))["last_words"]
    assert last_words(text) == (words or "torch.AcceleratorError: CUDA error: x")
