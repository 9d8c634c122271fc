from __future__ import annotations

import logging
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mechbench.catalogue.plugin_run import execute
from mechbench.errors import PluginError

Run = Callable[..., types.ModuleType]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def run(text: str, name: str = "plugin.py") -> types.ModuleType:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        module = types.ModuleType("a_plugin")
        module.__file__ = str(path)
        execute(module, text.encode(), path)
        return module

    yield run
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import sys\nsys.exit()\n", "ended the program at line 2; keep sys.exit"),
        ("import sys\nsys.exit('no GPU here')\n", "ended the program at line 2: no GPU here; keep"),
        ("raise SystemExit(0)\n", "ended the program at line 1; keep"),
        (
            "import argparse\np = argparse.ArgumentParser()\np.add_argument('--x', required=True)\n"
            "p.parse_args()\n",
            "ended the program at line 4: plugin.py: error: the following arguments are required: "
            "--x; keep",
        ),
    ],
)
def test_plugin_may_not_end_the_program(
    run: Run, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    arguments = list(sys.argv)
    with pytest.raises(PluginError) as caught:
        run(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr() == ("", "")  # no usage in our name
    assert sys.argv == arguments


def test_plugin_reads_no_arguments_of_ours(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["mechbench", "run", "-h"])
    text = "import argparse\np = argparse.ArgumentParser()\np.add_argument('--x', default=3)\n"
    assert run(text + "X = p.parse_args().x\n").X == 3
    assert sys.argv == ["mechbench", "run", "-h"]


def test_keyboard_interrupt_passes(run: Run) -> None:
    with pytest.raises(KeyboardInterrupt):
        run("raise KeyboardInterrupt\n")


def test_what_a_plugin_prints_is_printed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    stream = sys.stderr
    module = run(
        "import logging, sys\nprint('to stderr', file=sys.stderr)\nprint('to stdout')\n"
        "HANDLER = logging.StreamHandler()\n"
    )
    assert capsys.readouterr() == ("to stdout\n", "to stderr\n")
    assert sys.stderr is stream
    module.HANDLER.emit(logging.makeLogRecord({"msg": "later"}))
    assert capsys.readouterr().err == "later\n"
    with pytest.raises(PluginError):
        run("import sys\nprint('before', file=sys.stderr)\n1 / 0\n")
    assert capsys.readouterr().err == "before\n"


def test_file_beside_a_plugin_can_be_imported_also_when_it_is_called(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "beside_it.py").write_text("X = 1\n")
    (tmp_path / "later_on.py").write_text("X = 2\n")
    (tmp_path / "json.py").write_text("X = 3\n")
    text = "import beside_it, json\ndef f():\n    import later_on\n    return later_on.X\n"
    module = run(text)
    assert (module.beside_it.X, module.f()) == (1, 2)
    assert module.json.dumps  # the standard library's
    run(text)
    assert sys.path.count(str(tmp_path)) == 1
    assert sys.path[-1] == str(tmp_path)


def test_two_files_of_one_name_are_not_taken_for_each_other(run: Run, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "beside_it.py").write_text("X = 1\n")
    run("from beside_it import X\n", "one/plugin.py")
    with pytest.raises(PluginError) as caught:
        run("from beside_it import X\n", "two/plugin.py")
    for folder in ("one", "two"):
        assert str(tmp_path / folder / "beside_it.py") in str(caught.value)
