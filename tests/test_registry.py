from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from mechbench import registry
from mechbench.errors import ConfigError, PluginError
from mechbench.registry import OPERATORS, TASKS, Registry, load_plugin, load_plugins

pytestmark = pytest.mark.usefixtures("clean_registry")
HEAD = "import mechbench\n"
GOOD = (
    HEAD
    + """
@mechbench.register_operator("mine", source="me")
class Mine:
    \"\"\"My operator.

    More about it.
    \"\"\"
"""
)
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str, name: str = "plugin.py") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def entry_point(name: str, value: str, group: str) -> importlib.metadata.EntryPoint:
    return importlib.metadata.EntryPoint(name, value, group)


def fresh(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str]) -> Registry:
    """Make a catalogue of operators that finds these entry points."""
    group = "mechbench.operators"

    def entry_points(**query: str) -> list[importlib.metadata.EntryPoint]:
        assert query == {"group": group}
        return [entry_point(name, value, group) for name, value in points]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    return Registry("operator", "operators", group)


def test_built_ins_are_found_with_summary_source_and_origin() -> None:
    assert {"hyena", "attention"} <= set(OPERATORS.names())
    assert {"recall", "induction"} <= set(TASKS.names())
    entry = Registry("operator", "operators", "none").entry("hyena")
    assert entry.obj is None  # not imported
    assert entry.target == "mechbench.operators.hyena:Hyena"
    assert entry.origin == "built-in"
    assert entry.summary == "Gated long convolutions with implicit filters."
    assert "2302.10866" in entry.source


@pytest.mark.parametrize("catalogue", [OPERATORS, TASKS])
def test_catalogue_read_from_files_is_what_the_decorators_say(catalogue: Registry) -> None:
    read = Registry(catalogue.kind, catalogue.package, "none")
    for name in read.names():
        loaded, entry = catalogue.load(name), read.entry(name)
        decorated = catalogue.entry(name)
        assert decorated.obj is loaded
        for field in ("target", "summary", "source", "origin"):
            assert getattr(decorated, field) == getattr(entry, field), (name, field)


def test_unknown_name_suggests_and_lists() -> None:
    with pytest.raises(ConfigError, match="unknown operator 'hyna': did you mean 'hyena'") as got:
        OPERATORS.load("hyna")
    assert "attention, " in str(got.value)


def test_name_registered_twice_names_both_origins(write: Write) -> None:
    first = write(GOOD, "first.py")
    second = write(GOOD + "\n", "second.py")
    load_plugin(first)
    with pytest.raises(PluginError, match="'mine' is registered twice") as caught:
        load_plugin(second)
    assert str(first) in str(caught.value)
    assert str(second) in str(caught.value)
    assert OPERATORS.entry("mine").origin == str(first)


def test_built_in_name_cannot_be_taken(write: Write) -> None:
    path = write(GOOD.replace("mine", "hyena"))
    with pytest.raises(PluginError, match=r"'hyena' is registered twice: by built-in .*plugin"):
        load_plugin(path)
    assert OPERATORS.entry("hyena").origin == "built-in"


def test_two_factories_without_a_name_of_their_own_do_not_replace_each_other() -> None:
    OPERATORS.register("made")(partial(dict, a=1))
    with pytest.raises(PluginError, match="'made' is registered twice"):
        OPERATORS.register("made")(partial(dict, a=2))


def test_same_name_twice_in_one_file_raises(write: Write) -> None:
    with pytest.raises(PluginError, match="'mine' is registered twice"):
        load_plugin(write(GOOD + GOOD))


def test_plugin_is_registered_with_path_and_digest(write: Write) -> None:
    path = write(GOOD)
    load_plugin(path)
    entry = OPERATORS.entry("mine")
    assert (entry.origin, entry.summary, entry.source) == (str(path), "My operator.", "me")
    assert len(entry.digest) == 64
    assert OPERATORS.load("mine").__name__ == "Mine"
    assert sys.modules[entry.obj.__module__].Mine is entry.obj  # pickling finds it


def test_plugin_that_registers_another_modules_class_is_still_its_origin(write: Write) -> None:
    path = write(HEAD + "import torch\nmechbench.register_operator('linear')(torch.nn.Linear)\n")
    load_plugin(path)
    entry = OPERATORS.entry("linear")
    assert entry.origin == str(path)
    assert entry.digest  # else the cell id would not change with the file


def test_plugin_that_registers_a_built_in_class_anew_is_its_origin(write: Write) -> None:
    text = "from mechbench.operators.hyena import Hyena\n"
    path = write(HEAD + text + "mechbench.register_operator('hyena-too')(Hyena)\n")
    load_plugin(path)
    assert OPERATORS.entry("hyena-too").origin == str(path)
    assert OPERATORS.entry("hyena").origin == "built-in"


def test_second_load_of_the_same_file_is_a_no_op(write: Write) -> None:
    path = write(GOOD)
    load_plugin(path)
    first = OPERATORS.load("mine")
    load_plugin(path)
    assert OPERATORS.load("mine") is first


def test_edited_plugin_is_executed_as_it_is_now(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python's bytecode cache knows a file by its size and the second it was written in.
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = write(GOOD + "VALUE = 1\n")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    load_plugin(path)
    path = write(GOOD.replace("mine", "your") + "VALUE = 2\n")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    load_plugin(path)
    assert sys.modules[OPERATORS.load("your").__module__].VALUE == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import nowhere_at_all\n", "raised ModuleNotFoundError at line 1: No module named"),
        (GOOD + "\n\n1 / 0\n", "raised ZeroDivisionError at line 11: division by zero"),
        ("x = 1\nthis is no python\n", "raised SyntaxError at line 2: invalid syntax"),
        (GOOD + "raise ValueError('two\\nlines')\n", "raised ValueError at line 9: two lines"),
        ("x = 1\n", "registers nothing: decorate a class with @mechbench.register_operator"),
        ("", "registers nothing"),
        ("x = '\x00'\n", "raised SyntaxError"),
    ],
)
def test_plugin_that_fails_is_one_line_and_leaves_nothing(
    write: Write, text: str, says: str
) -> None:
    path = write(text)
    names, modules, plugins = OPERATORS.names(), set(sys.modules), dict(registry._PLUGINS)
    with pytest.raises(PluginError) as caught:
        load_plugin(path)
    message = str(caught.value)
    assert message.startswith(f"plugin {path} ")
    assert says in message
    assert "\n" not in message
    assert OPERATORS.names() == names
    assert not {m for m in set(sys.modules) - modules if m.startswith("mechbench_plugin_")}
    assert plugins == registry._PLUGINS
    path.write_text(GOOD)  # mended, it loads
    load_plugin(path)


def test_plugin_that_fails_after_registering_anothers_class_leaves_nothing(write: Write) -> None:
    text = "import torch\nmechbench.register_operator('linear')(torch.nn.Linear)\n1 / 0\n"
    with pytest.raises(PluginError):
        load_plugin(write(HEAD + text))
    assert "linear" not in OPERATORS.names()


def test_plugin_may_not_end_the_process(write: Write) -> None:
    before = OPERATORS.names()
    with pytest.raises((PluginError, SystemExit)):
        load_plugin(write(GOOD + "raise SystemExit(0)\n"))
    assert OPERATORS.names() == before


@pytest.mark.parametrize(
    ("name", "says"),
    [("absent.py", "cannot be read: No such file"), ("", "cannot be read: Is a directory")],
)
def test_plugin_that_cannot_be_read(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(PluginError, match=says):
        load_plugin(tmp_path / name)


def test_plugin_with_another_suffix_is_refused(write: Write) -> None:
    with pytest.raises(PluginError, match=r"expected a name ending in \.py"):
        load_plugin(write(GOOD, "plugin.txt"))


def test_plugins_come_from_the_environment_too(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = write(GOOD, "one.py"), write(GOOD.replace("mine", "yours"), "two.py")
    monkeypatch.setenv("MECHBENCH_PLUGINS", os.pathsep.join([str(one), "", str(two)]))
    three = write(GOOD.replace("mine", "theirs"), "three.py")
    load_plugins((str(three),))
    assert {"mine", "yours", "theirs"} <= set(OPERATORS.names())


def test_entry_point_is_listed_without_import_and_loaded_on_demand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    catalogue = fresh(monkeypatch, ("ordered", "collections:OrderedDict"))
    assert "ordered" in catalogue.names()
    assert catalogue.entry("ordered").obj is None
    assert catalogue.entry("ordered").origin.startswith("package ")
    assert catalogue.load("ordered").__name__ == "OrderedDict"


@pytest.mark.parametrize("value", ["nowhere_at_all:X", "collections:Nothing"])
def test_entry_point_that_does_not_load_is_one_line(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    catalogue = fresh(monkeypatch, ("broken", value))
    with pytest.raises(PluginError, match=r"operator 'broken' of package .* cannot be loaded"):
        catalogue.load("broken")
    assert catalogue.load("hyena").__name__ == "Hyena"  # the others still work


def test_entry_point_that_takes_a_built_in_name_raises_every_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    catalogue = fresh(monkeypatch, ("hyena", "collections:OrderedDict"))
    for _ in range(2):
        with pytest.raises(PluginError, match="'hyena' is registered twice: by built-in and by"):
            catalogue.names()


@pytest.mark.parametrize("kind", ["operators", "tasks"])
def test_list_imports_no_torch(kind: str) -> None:
    code = (
        "import sys; from mechbench.cli import main; sys.argv[1:] = ['list', sys.argv[1]]\n"
        "try: main()\nexcept SystemExit as stop: assert not stop.code\n"
        "assert not {'torch', 'numpy', 'pandas', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, kind], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("NAME")
