from __future__ import annotations

import csv
import json

import pytest

from cli.conftest import CommandLine

_PLUGIN = """import mechbench
from torch import nn

@mechbench.register_operator("broken")
class Broken(nn.Module):
    def __init__(self, d_model, max_seqlen):
        super().__init__()

    def forward(self, u):
        raise ValueError("no\\nway")
"""
_TINY = ("--d-model", "8", "--tokens", "256", "--repeats", "2", "--device", "cpu")
_LENGTHS = ("--seqlen", "128", "--seqlen", "64")


def test_bench_of_two_operators_a_convolution_and_a_fault(mechbench: CommandLine) -> None:
    (mechbench.folder / "plugin.py").write_text(_PLUGIN)
    operators = ("--operator", "hyena", "--operator", "attention", "--operator", "broken")
    done = mechbench(
        "bench", *operators, "--fft-conv", *_LENGTHS, *_TINY, "--plugin", "plugin.py",
        "--option", "n_heads=2", "--out", "found",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines() == [
        f"mechbench: warning: broken at {n}: ValueError: no way" for n in (64, 128)
    ]
    out = mechbench.folder / "found"
    assert sorted(path.name for path in out.iterdir()) == [
        f"bench.{suffix}" for suffix in ("csv", "json", "md", "png", "svg")
    ]
    rows = list(csv.DictReader((out / "bench.csv").read_text().splitlines()))
    status = {(row["line"], row["seqlen"]): row["status"] for row in rows}
    for name in ("hyena", "attention", "fft_conv/torch"):
        assert status[name, "64"] == status[name, "128"] == "ok"
    assert status["broken", "128"] == "error"
    assert {row["batch"] for row in rows if row["seqlen"] == "64"} == {"4"}
    data = json.loads((out / "bench.json").read_text())
    assert data["summary"]["hyena"]["crossover"]
    assert data["lines"][1]["options"]["n_heads"] == 2
    text = (out / "bench.md").read_text()
    assert done.stdout.endswith(text)
    assert "--out found`" in text
    assert str(mechbench.folder) not in text


def test_all_stands_for_every_built_in_operator(mechbench: CommandLine) -> None:
    told = mechbench.error("bench", "--operator", "all", "--option", "no_such_option=1")
    assert told.startswith("operator 'hybrid' has no option")  # the one that hands options on


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--operator", "hyna"), "unknown operator 'hyna': did you mean 'hyena'"),
        (("--operator", "hyena", "--option", "ordre=2"), "did you mean 'order'"),
        (("--operator", "hyena", "--device", "tpu"), "unknown device 'tpu'"),
        (("--operator", "hyena", "--seqlen", "0"), "seqlen is 0: expected at least 1"),
        ((), "nothing to measure"),
    ],
)
def test_wrong_use_is_one_line(args: tuple[str, ...], says: str, mechbench: CommandLine) -> None:
    assert says in mechbench.error("bench", *args)
    assert not (mechbench.folder / "bench").exists()
