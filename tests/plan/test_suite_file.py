from __future__ import annotations

from pathlib import Path

import pytest

from mechbench.errors import ConfigError
from mechbench.plan.suite_file import read_suite
from mechbench.record.config import PROTOCOL

GOOD = """title = "Recall"
seeds = [0, 1]
lrs = [1e-3, 4e-3]
operators = ["hyena", "attention"]

[settings]
d_model = 32

[grid]
seqlen = [64, 128]
task.min_distance = [0, 8]

[[tasks]]
name = "recall"
[tasks.settings]
vocab_size = 30
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_file_is_read(tmp_path: Path) -> None:
    suite = read_suite(write(tmp_path, GOOD))
    assert (suite.name, suite.title, suite.seeds) == ("mine", "Recall", (0, 1))
    assert suite.lrs == (1e-3, 4e-3)
    assert [e.name for e in suite.operators] == ["hyena", "attention"]
    assert suite.grid == {"seqlen": [64, 128], "task.min_distance": [0, 8]}
    assert suite.tasks[0].settings == {"vocab_size": 30}
    assert suite.tasks[0].seeds == ()
    own = GOOD.replace('"recall"', '"recall"\nseeds = [4]')
    assert read_suite(write(tmp_path, own)).tasks[0].seeds == (4,)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('"Recall"', '""', ":1: title: is ''"),
        ("title", "tittle", ":1: tittle: unknown key: did you mean 'title'"),
        ('title = "Recall"', "", "the key 'title' is missing"),
        ("[0, 1]", "[0, 0]", ":2: seeds: .* twice"),
        ("[0, 1]", "[]", ":2: seeds: is \\[\\]: expected a list of one or more"),
        ("[0, 1]", "[-1]", ":2: seeds: -1 is no seed"),
        ("[0, 1]", f"[{2**63}]", f":2: seeds: {2**63} is too large: expected at most"),
        ("1e-3", "1e308", ":3: lrs: 1e\\+308 is too large: expected at most"),
        ("[0, 1]", "[true]", ":2: seeds: True is no seed"),
        ("1e-3", "0", ":3: lrs: 0 is no learning rate"),
        ("[1e-3, 4e-3]", "'all'", ":3: lrs: is 'all': expected a list"),
        ("1e-3", "nan", ":3: lrs: nan is no learning rate"),
        ('"hyena"', '""', ":4: operators\\[0\\]: is '': expected a name"),
        ('"hyena"', "{ nam = 'x' }", ":4: operators\\[0\\].nam: unknown key: did you mean 'name'"),
        ('"hyena"', "{ name = 'x', options = 1 }", ":4: operators\\[0\\].options: is 1"),
        ('"hyena"', "{ name = 'x', lrs = [0] }", ":4: operators\\[0\\].lrs: 0 is no"),
        ('"hyena"', "{ name = 'x', seeds = [0] }", ":4: operators\\[0\\].seeds: unknown key"),
        ("vocab_size = 30", "[[tasks]]\nname='x'\nseeds=[-1]", ":18: tasks\\[1\\].seeds: -1 is"),
        ("vocab_size = 30", "[[tasks]]\nname='x'\nseeds=[]", ":18: tasks\\[1\\].seeds: is"),
        ("d_model", "d_modell", ":7: settings.d_modell: unknown key: did you mean 'd_model'"),
        ("d_model", "seed", ":7: settings.seed: unknown key"),
        ("= 32", '= "32"', ":7: settings.d_model: is '32': expected a whole number"),
        ("d_model", "eval_seqlens", ":7: settings.eval_seqlens: is 32: expected a list of len"),
        ("d_model = 32", "budget_tokens = 1\nbudget_sequences = 2", ":8: .*give one of the two"),
        ("d_model = 32", "budget_epochs = 1\nbudget_tokens = 2", ":7: .*give one of the two"),
        ("d_model = 32", "budget_sequences = 0", ":7: settings.budget_sequences: is 0: expected"),
        ("seqlen = [64, 128]", "seqlen = 64", ":10: grid.seqlen: is 64: expected a list"),
        ("seqlen = [64, 128]", "seqlen = [64, 1.5]", ":10: grid.seqlen: is 1.5: expected a whole"),
        ("seqlen", "seqlem", ":10: grid.seqlem: unknown key: did you mean 'seqlen'"),
        ("= [0, 8]", "= 8", ":11: grid.task.min_distance: is 8: expected a list"),
        ("task.min_distance", "task", ":11: grid.task: expected task.OPTION"),
        ("vocab_size", "vocabsize", ":16: tasks\\[0\\].settings.vocabsize: unknown key"),
        ("[grid]", "[grid", "is no TOML file: .*line 9"),
        ("title", f"protocol = {PROTOCOL + 1}\ntitle", ":1: protocol: the suite is for protocol"),
        ("title", "carry_on = 0\ntitle", ":1: carry_on: is 0: expected a whole number of 1 to"),
        ("title", "carry_on = 1.5\ntitle", ":1: carry_on: is 1.5: expected a whole number"),
    ],
)  # fmt: skip
def test_error_names_file_line_and_key(tmp_path: Path, old: str, new: str, text: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError, match=text) as got:
        read_suite(write(tmp_path, GOOD.replace(old, new, 1)))
    assert "mine.toml" in str(got.value)
    assert "\n" not in str(got.value)


def test_absent_and_undecodable_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_suite(tmp_path / "absent.toml")
    path = tmp_path / "bad.toml"
    path.write_bytes(b"title = '\xff'")
    with pytest.raises(ConfigError, match="is no TOML file"):
        read_suite(path)
