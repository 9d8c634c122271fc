from __future__ import annotations

from pathlib import Path

import pytest

from cli.conftest import CommandLine, Done, error_of

PLUGIN = """
import torch
import mechbench


class Base(torch.nn.Module):
    def __init__(self, d_model: int, max_seqlen: int) -> None:
        super().__init__()

    def forward(self, u):
        return u


@mechbench.register_operator("broken")
class Broken(Base):
    def mixing_matrix(self, u):
        raise ValueError("no\\nmatrix")
"""
ERRORS = {"broken": "operator 'broken' raised ValueError at line 17 of its file: no matrix"}


@pytest.fixture(scope="module")
def outcomes(mechbench_of_module: CommandLine) -> dict[str, Done]:
    (mechbench_of_module.folder / "plugin.py").write_text(PLUGIN)
    names = [*ERRORS, "attention"]
    shape = ("--seqlen", "8", "--d-model", "8")
    more = (*shape, "--plugin", "plugin.py", "--out")
    return {
        name: mechbench_of_module.inside("inspect", "--operator", name, *more, f"plots/{name}")
        for name in names
    }


def test_matrix_is_drawn_as_png_and_svg(
    outcomes: dict[str, Done], mechbench_of_module: CommandLine
) -> None:
    done = outcomes["attention"]
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"plots/attention/{name}.{kind}"
        for name in ("mixing_matrix", "gradient_reach")
        for kind in ("png", "svg")
    ]
    for line in done.stdout.splitlines():
        drawn = Path(mechbench_of_module.folder, line).read_bytes()
        assert drawn.startswith(b"\x89PNG\r\n") if line.endswith("png") else b"</svg>" in drawn


@pytest.mark.parametrize("operator", ERRORS)
def test_operator_without_a_sound_matrix_is_named_in_one_line(
    outcomes: dict[str, Done], operator: str, mechbench_of_module: CommandLine
) -> None:
    assert error_of(outcomes[operator]).startswith(ERRORS[operator])
    assert not (mechbench_of_module.folder / "plots" / operator).exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--operator", "hyna"), "unknown operator 'hyna': did you mean 'hyena'?"),
        (("--operator", "hyena", "--seqlen", "1"), "seqlen is 1: expected 2 to 1024"),
        (("--operator", "hyena", "--seqlen", "4096"), "seqlen is 4096: expected 2 to 1024"),
        ((), "Missing option '--operator'."),
    ],
)
def test_bad_arguments_are_one_line(
    mechbench: CommandLine, args: tuple[str, ...], message: str
) -> None:
    assert mechbench.error("inspect", *args).startswith(message)
