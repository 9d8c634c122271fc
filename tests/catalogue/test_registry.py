from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mechbench.catalogue import registry
from mechbench.catalogue.plugins import forget, load_plugin
from mechbench.catalogue.registry import FILTERS, OPERATORS, TASKS, Registry
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


@pytest.mark.parametrize("catalogue", [OPERATORS, TASKS, FILTERS])
def test_catalogue_read_from_files_is_what_the_decorators_say(catalogue: Registry) -> None:
    read = Registry(catalogue.kind, catalogue.folder, "none")
    for name in read.names():
        loaded, entry = catalogue.load(name), read.entry(name)
        decorated = catalogue.entry(name)
        assert decorated.obj is loaded
        for field in ("target", "summary", "source", "origin", "measures"):
            assert getattr(decorated, field) == getattr(entry, field), (name, field)


def test_unknown_name_suggests_and_lists() -> None:
    with pytest.raises(ConfigError, match="unknown operator 'hyna': did you mean 'hyena'") as got:
        OPERATORS.load("hyna")
    assert "attention, " in str(got.value)


def test_what_comes_with_the_package_is_told_from_plugins(write: Write) -> None:
    before = OPERATORS.built_in()
    assert {"hyena", "attention", "conv"} <= set(before) <= set(OPERATORS.names())
    load_plugin(write(GOOD))
    assert OPERATORS.built_in() == before
    assert "mine" in OPERATORS.names()


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


@pytest.mark.parametrize(
    "name",
    ["_hidden", "-x", "a b", "", "hyen\u0430", "a,b", "x" * 65, "a\nb", "a/b", "<b>", "=1", " x"],
)
def test_name_that_would_not_show_is_refused(write: Write, name: str) -> None:
    for catalogue in (OPERATORS, TASKS, FILTERS):
        with pytest.raises(PluginError, match=r"name .* is not possible: expected 1 to 64 of a-z"):
            catalogue.register(name)
    with pytest.raises(PluginError) as caught:
        load_plugin(write(GOOD.replace('"mine"', repr(name))))
    assert "plugin.py: operator name" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_name_of_a_package_is_judged_too(monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = fresh(monkeypatch, ("_hidden", "collections:OrderedDict"))
    with pytest.raises(PluginError, match=r"name '_hidden' of package .* is not possible"):
        catalogue.names()


@pytest.mark.parametrize("name", ["a", "my-op_2.1", "lab:Layer", "X" * 64])
def test_usual_names_are_taken(name: str) -> None:
    OPERATORS.register(name)(partial(dict))
    assert name in OPERATORS.names()


def test_decorator_without_a_name_says_how_it_is_written() -> None:
    with pytest.raises(PluginError, match=r"expected a name, @mechbench.register_operator\('name"):
        registry.register_operator(dict)  # type: ignore[arg-type]


def typed_in(monkeypatch: pytest.MonkeyPatch, text: str, file: Path | None = None) -> None:
    """Execute `text` in `__main__`, as a notebook does, or a script if there is a file."""
    main = sys.modules["__main__"]
    if main.__doc__ != "ours":
        main = types.ModuleType("__main__", "ours")
        monkeypatch.setitem(sys.modules, "__main__", main)
    if file is not None:
        main.__file__ = str(file)
        file.write_text(text)
    exec(compile(text, str(file or "<cell>"), "exec"), main.__dict__)


CELL = HEAD + "@mechbench.register_operator('mine')\nclass Mine:\n    SCALE = 1\n"


def test_notebook_cell_run_again_takes_the_place_of_the_old(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    typed_in(monkeypatch, CELL)
    one = OPERATORS.sources("mine")
    assert list(one) == ["__main__:Mine"]
    typed_in(monkeypatch, CELL)
    assert OPERATORS.sources("mine") == one
    typed_in(monkeypatch, CELL.replace("= 1", "= 2"))
    assert OPERATORS.load("mine").SCALE == 2
    assert OPERATORS.sources("mine") != one
    typed_in(monkeypatch, CELL.replace("class Mine", "class Renamed"))
    assert OPERATORS.load("mine").__name__ == "Renamed"
    with pytest.raises(PluginError, match="'hyena' is registered twice"):
        typed_in(monkeypatch, CELL.replace("mine", "hyena"))


def test_script_is_known_by_its_text_and_what_a_loop_makes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def of(text: str) -> dict[str, str]:
        monkeypatch.setattr("mechbench.catalogue.sources._SEEN", {})
        typed_in(monkeypatch, text, tmp_path / "script.py")
        return OPERATORS.sources("mine")

    one = of(CELL)
    assert set(one) == {"__main__", "__main__:Mine"}
    assert of(CELL) == one
    assert of(CELL + "# edited\n")["__main__"] != one["__main__"]
    loop = CELL.replace("\n@", "\nfor k in (1, 2):\n  @").replace("\nclass", "\n  class")
    loop = loop.replace("SCALE = 1", "SCALE = k")
    both = of(loop)
    assert OPERATORS.load("mine").SCALE == 2
    assert of(loop.replace("(1, 2)", "(2, 1)"))["__main__:Mine"] != both["__main__:Mine"]
    with pytest.raises(PluginError, match="'mine' is registered twice"):  # a slip, not an edit
        of(CELL + CELL.replace("class Mine", "class Other"))


def test_two_of_one_name_in_a_script_are_not_taken_for_each_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("mechbench.catalogue.sources._SEEN", {})
    cell = (
        CELL
        + "    def f(self): return 1\n"
        + "SEEN.append(mechbench.catalogue.registry.OPERATORS.sources('mine'))\n"
    )
    text = (
        "import mechbench.catalogue.registry\nSEEN = []\n"
        + cell
        + cell.replace("return 1", "return 2")
    )
    typed_in(monkeypatch, text, tmp_path / "script.py")
    one, two = sys.modules["__main__"].SEEN
    assert one["__main__"] == two["__main__"]
    assert one["__main__:Mine"] != two["__main__:Mine"]


def test_built_in_class_under_another_name_is_not_a_built_in() -> None:
    from mechbench.operators.attention import Attention
    from mechbench.operators.hyena import Hyena

    found = []
    for cls in (Hyena, Attention):
        registry.register_operator("again")(cls)
        found.append(OPERATORS.sources("again"))
        del OPERATORS.entries["again"]
    assert list(found[0]) == ["mechbench.operators.hyena:Hyena"]
    assert list(found[1]) == ["mechbench.operators.attention:Attention"]


def test_other_processes_need_a_file(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    typed_in(monkeypatch, CELL)
    with pytest.raises(ConfigError, match="'mine' is registered by module __main__: other proc"):
        OPERATORS.must_have_file("mine")
    load_plugin(write(GOOD.replace("mine", "yours")))
    for name in ("hyena", "yours"):
        OPERATORS.must_have_file(name)


def test_base_class_and_helpers_of_a_module_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in {
        "its_base": "import its_helper\nclass Base: pass\n",
        "its_helper": "X = 1\n",
        "a_layer": HEAD + "from its_base import Base\n"
        "@mechbench.register_operator('mine')\nclass Mine(Base): pass\n",
    }.items():
        (tmp_path / f"{name}.py").write_text(text)
    __import__("a_layer")
    names = {"a_layer", "a_layer:Mine", "its_base", "its_helper"}
    assert set(OPERATORS.sources("mine")) == names
    (tmp_path / "use.py").write_text(
        HEAD + "from a_layer import Mine\nmechbench.register_operator('same')(Mine)\n"
    )
    load_plugin(tmp_path / "use.py")
    assert set(OPERATORS.sources("same")) == names - {"a_layer:Mine"}  # beside its own digest
    for name in ("a_layer", "its_base", "its_helper"):
        del sys.modules[name]


def test_class_that_a_plugin_executes_from_elsewhere_counts(write: Write) -> None:
    def of(text: str) -> dict[str, str]:
        body = write("class Mine:\n    def f(self): return " + text, "body.txt")
        exec_it = f"import pathlib\nexec(pathlib.Path({str(body)!r}).read_text())\n"
        exec_it += "mechbench.register_operator('mine')(Mine)\n"
        for name in list(registry.PLUGIN_FILES):
            forget(name)
            del sys.modules[name]
        load_plugin(write(HEAD + exec_it))
        return OPERATORS.sources("mine")

    assert list(of("1")) == ["Mine"]
    assert of("1") == of("1") != of("2")


def test_built_ins_and_a_plugin_that_needs_nothing_have_no_sources(write: Write) -> None:
    load_plugin(write(GOOD))
    for name in OPERATORS.names():
        if OPERATORS.entry(name).origin in ("built-in", str(write(GOOD))):
            assert OPERATORS.sources(name) == {}
    assert all(TASKS.sources(name) == {} for name in TASKS.names())


def test_same_name_twice_in_one_file_raises(write: Write) -> None:
    with pytest.raises(PluginError, match="'mine' is registered twice"):
        load_plugin(write(GOOD + GOOD))


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


def test_package_may_not_end_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "ends_it.py").write_text("import sys\nsys.exit(3)\n")
    catalogue = fresh(monkeypatch, ("broken", "ends_it:X"))
    with pytest.raises(PluginError, match=r"'broken' of package .* cannot be loaded: SystemExit"):
        catalogue.load("broken")


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
    assert {"operators": "attention  ", "tasks": "  recall  "}[kind] in done.stdout


@pytest.mark.parametrize("name", [None, 1.5, b"hyena", ["hyena"], object()])
def test_a_name_is_a_text(name: Any) -> None:
    with pytest.raises(ConfigError, match=r"^operator is .*: expected a name$"):
        OPERATORS.load(name)
