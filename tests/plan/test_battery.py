from __future__ import annotations

from pathlib import Path

import pytest

from mechbench.errors import ConfigError
from mechbench.plan.battery import for_operators, of_tasks, one_of_each
from mechbench.plan.suite import Suite
from mechbench.plan.suite_file import read_suite

TEXT = """title = "T"
operators = ["attention", "h3"]
seeds = [0, 1]
lrs = [1e-3, 2e-3]
[settings]
seqlen = 16
budget_tokens = 20_000
[[tasks]]
name = "recall"
seeds = [3, 4, 5]
[[tasks]]
name = "induction"
"""


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    path = tmp_path / "mine.toml"
    path.write_text(TEXT)
    return read_suite(path)


def test_other_operators_with_their_options(suite: Suite) -> None:
    found = for_operators(suite, ["hyena"], {"order": "3"}, ["mine.py"])
    assert found.plugins == ("mine.py",)
    cells = for_operators(suite, ["hyena"], {"order": "3"}).cells("cpu")
    assert {(c.config.operator, c.config.operator_options["order"]) for c in cells} == {
        ("hyena", 3)
    }
    assert {c.config.task for c in cells} == {"recall", "induction"}


def test_some_tasks(suite: Suite) -> None:
    assert [task.name for task in of_tasks(suite, ["induction"]).tasks] == ["induction"]
    with pytest.raises(ConfigError, match=r"--tasks: mine has no 'recal': did you mean 'recall'"):
        of_tasks(suite, ["recal"])


def test_one_cell_a_point(suite: Suite) -> None:
    cells = one_of_each(suite).cells("cpu")
    assert [(c.config.operator, c.config.task, c.config.seed) for c in cells] == [
        (operator, task, 0) for task in ("recall", "induction") for operator in ("attention", "h3")
    ]
