from __future__ import annotations

import re

import pytest

from cli.conftest import CommandLine

PLUGIN = """
import mechbench, torch

@mechbench.register_operator("mine")
class Mine(torch.nn.Module):
    \"\"\"Mine alone.

    Args:
        bias: whether.
    \"\"\"

    def __init__(self, d_model: int, max_seqlen: int, *, width: int, bias: bool = True):
        super().__init__()
"""


def test_task_is_drawn_with_chance_shortcuts_and_required_context(mechbench: CommandLine) -> None:
    text = mechbench.works("show", "recall", "--seqlen", "32").stdout
    positions = [int(p) for row in re.findall(r"^position (.*)", text, re.M) for p in row.split()]
    assert positions == list(range(34))
    figures = {
        name: float(percent)
        for name, percent in re.findall(r"^(\w[\w ]*?) +([\d.]+)%(?:$|  \[)", text, re.M)
    }
    shortcuts = {"most frequent value", "last value", "first value"}
    assert set(figures) == {"chance", "oracle"} | shortcuts
    assert figures["chance"] == pytest.approx(100 / 9, abs=0.05)  # nine values at V = 20
    assert figures["oracle"] == 100
    assert all(figures["chance"] < figures[name] < 60 for name in shortcuts)
    windows = re.search(r"^W +(.*)\naccuracy +(.*)$", text, re.M)
    assert windows is not None
    assert windows[1].split() == ["16", "32", "34"]
    reached = [float(a.rstrip("%")) for a in windows[2].split()]
    assert reached == sorted(reached)
    assert reached[0] < 100
    assert reached[-1] == 100


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("recal",), "unknown task, operator or filter 'recal': did you mean 'recall'?"),
        (("mamba2", "--seqlen", "64"), "--seqlen is for tasks: 'mamba2' is none"),
        (("fno", "--seed", "0"), "--seed is for tasks: 'fno' is none"),
        (("fla:gla",), "mechbench[fla]"),
        (("recall", "--seqlen", "7"), "seqlen is 7: recall needs an even number"),
        (("recall", "--task-option", "distance=3"), "did you mean 'min_distance'?"),
        (("recall", "--task-option", "min_distance=far"), "'far': expected a whole number"),
        (("recall", "--examples", "0"), "examples is 0: expected at least 1"),
        ((), "Missing argument 'NAME'."),
    ],
)
def test_bad_arguments_are_one_line(
    mechbench: CommandLine, args: tuple[str, ...], message: str
) -> None:
    assert message in mechbench.error("show", *args)


def test_an_operator_is_shown_with_its_equation_options_and_source(mechbench: CommandLine) -> None:
    text = mechbench.works("show", "mamba2").stdout
    assert max(map(len, text.splitlines())) <= 80
    assert "Source: Dao & Gu 2024 (arXiv:2405.21060), sections 6 and 7\n" in text
    assert "    S_t = exp(dt_t A) S_{t-1} + dt_t B_t x_t^T,   y_t = S_t^T C_t" in text
    assert "  d_state: int, default 128\n    size of a channel's state.\n" in text
    assert "  mechbench run --operator mamba2 --task recall\n" in text


def test_a_name_of_two_kinds_is_shown_as_both(mechbench: CommandLine) -> None:
    operator, _, family = mechbench.works("show", "hyena").stdout.partition("\nhyena (filter): ")
    assert operator.startswith("hyena (operator): Gated long convolutions")
    assert "d_state, emb_dim, fast_decay" in " ".join(operator.split())
    assert "Options, --option filter=hyena --option NAME=VALUE:\n  emb_dim: int" in family


def test_an_operator_of_a_plugin_says_where_it_is_from(mechbench: CommandLine) -> None:
    (mechbench.folder / "mine.py").write_text(PLUGIN)
    text = mechbench.works("show", "mine", "--plugin", "mine.py").stdout
    assert text.startswith("mine (operator, from mine.py): Mine alone.\n")
    assert "Source:" not in text
    assert "  width: int, required\n  bias: bool, default true\n    whether.\n" in text
