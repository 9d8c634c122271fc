from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mechbench.catalogue import plugins, registry
from mechbench.catalogue.plugins import load_plugin, load_plugins
from mechbench.catalogue.registry import FILTERS, OPERATORS, code_of
from mechbench.errors import ConfigError, PluginError

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


def test_edited_plugin_takes_the_place_of_the_old_and_a_broken_one_does_not(
    write: Write,
) -> None:
    path = write(GOOD + "    SIZE = 1\n")
    load_plugin(path)
    first = OPERATORS.entry("mine")
    write(GOOD + "    SIZE = 2\n1 / 0\n")
    with pytest.raises(PluginError, match="raised ZeroDivisionError"):
        load_plugin(path)
    assert OPERATORS.entry("mine") is first
    assert first.digest in plugins.loaded_plugins()
    write(GOOD + "    SIZE = 2\n")
    load_plugin(path)
    assert OPERATORS.load("mine").SIZE == 2
    assert first.digest not in plugins.loaded_plugins()
    os.utime(path)  # touched, nothing else
    second = OPERATORS.entry("mine")
    load_plugin(path)
    assert OPERATORS.entry("mine") is second


def test_worker_goes_on_with_the_plugin_that_it_has(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mechbench.catalogue.plugins._keeping", False)
    plugins.keep_plugins()
    path = write(GOOD)
    load_plugin(path)
    first = OPERATORS.entry("mine")
    write(GOOD + "# edited\n")
    load_plugin(path)
    assert OPERATORS.entry("mine") is first


def test_one_path_may_stand_for_a_list_and_no_path_is_told(write: Write) -> None:
    load_plugins(str(write(GOOD)))
    load_plugins(write(GOOD.replace("mine", "yours"), "two.py"))
    assert {"mine", "yours"} <= set(OPERATORS.names())
    with pytest.raises(ConfigError, match="plugins is 3: expected a list of paths"):
        load_plugins(3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="plugins holds 3: expected paths"):
        load_plugins([3])  # type: ignore[list-item]


def test_plugin_is_registered_with_path_and_digest(write: Write) -> None:
    path = write(GOOD)
    load_plugin(path)
    entry = OPERATORS.entry("mine")
    assert (entry.origin, entry.summary, entry.source) == (str(path), "My operator.", "me")
    assert len(entry.digest) == 64
    assert OPERATORS.load("mine").__name__ == "Mine"
    assert sys.modules[entry.obj.__module__].Mine is entry.obj  # pickling finds it


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
    names, modules, plugins = OPERATORS.names(), set(sys.modules), dict(registry.PLUGIN_FILES)
    with pytest.raises(PluginError) as caught:
        load_plugin(path)
    message = str(caught.value)
    assert message.startswith(f"plugin {path} ")
    assert says in message
    assert "\n" not in message
    assert OPERATORS.names() == names
    assert not {m for m in set(sys.modules) - modules if m.startswith("mechbench_plugin_")}
    assert plugins == registry.PLUGIN_FILES
    path.write_text(GOOD)  # mended, it loads
    load_plugin(path)


def test_plugin_that_fails_after_registering_anothers_class_leaves_nothing(write: Write) -> None:
    text = "import torch\nmechbench.register_operator('linear')(torch.nn.Linear)\n1 / 0\n"
    with pytest.raises(PluginError):
        load_plugin(write(HEAD + text))
    assert "linear" not in OPERATORS.names()


def test_plugin_of_a_filter_alone_is_one_and_its_failure_leaves_nothing(write: Write) -> None:
    text = GOOD.replace("register_operator", "register_filter")
    names = FILTERS.names()
    with pytest.raises(PluginError):
        load_plugin(write(text + "1 / 0\n"))
    assert FILTERS.names() == names
    path = write(text)
    load_plugin(path)
    entry = FILTERS.entry("mine")
    assert (entry.kind, entry.origin, entry.source) == ("filter", str(path), "me")
    assert "mine" not in OPERATORS.names()
    assert code_of([entry, FILTERS.entry("fno")]) == ({str(path): entry.digest}, {})
    load_plugin(write(text.replace('"mine"', '"yours"')))
    assert set(FILTERS.names()) - set(names) == {"yours"}


def test_plugin_may_not_end_the_process(write: Write) -> None:
    before = OPERATORS.names()
    with pytest.raises(PluginError, match="ended the program at line 9"):
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


@pytest.mark.parametrize("plugins", [1, None, np.array(3)])
def test_plugins_are_a_list_of_paths(plugins: Any) -> None:
    with pytest.raises(ConfigError, match=r"^plugins is .*: expected a list of paths$"):
        load_plugins(plugins)


def test_a_plugin_is_a_path() -> None:
    with pytest.raises(ConfigError, match="plugin is 1: expected a path"):
        load_plugin(1)  # type: ignore[arg-type]
