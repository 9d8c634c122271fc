from __future__ import annotations

import importlib
import json
import sys
import tomllib
import types
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

from mechbench.catalogue import sources
from mechbench.catalogue.sources import UNKNOWN, edited, executed, is_local, reached, version

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write modules that can be imported, and forget them afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sources, "_SEEN", {})
    monkeypatch.setattr(sources, "_LOOSE", {})
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
        importlib.invalidate_caches()
        return path

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]
    sources._versions.cache_clear()


def distribution(folder: Path, name: str, number: str, **origin: object) -> None:
    """Put the metadata of an installed distribution into `folder`."""
    info = folder / f"{name.replace('-', '_')}-{number}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")
    (info / "RECORD").write_text(f"{name}.py,,\n")
    if origin:
        (info / "direct_url.json").write_text(json.dumps(origin))
    sources._versions.cache_clear()


def test_all_that_is_reached_by_import_counts(write: Write) -> None:
    write("first_one.py", "import json, torch\nfrom inner.part import f\n")
    write("inner/__init__.py", "")
    write("inner/part.py", "from . import deep\nfrom .deep import *\ndef f(): import late_one\n")
    write("inner/deep.py", "import importlib\nm = importlib.import_module('by_name')\n")
    write("late_one.py", "import lazy\n")
    write("lazy/__init__.py", "from .inner import X\n")
    write("lazy/inner.py", "X = 1\n")
    write("by_name.py", "X = 1\n")
    write("unrelated.py", "X = 1\n")
    importlib.import_module("first_one")
    importlib.import_module("unrelated")
    found = reached(["first_one"])
    names = {"by_name", "first_one", "inner", "inner.deep", "inner.part", "late_one"}
    names |= {"lazy", "lazy.inner"}
    assert set(found) == names
    assert "late_one" not in sys.modules  # looked at, not imported
    assert all(len(digest) == 64 for digest in found.values())


@pytest.mark.parametrize("name", ["first_one.py", "inner/part.py", "late_one.py"])
def test_any_edit_gives_another_digest_and_another_folder_does_not(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    texts = {
        "first_one.py": "from inner.part import f\n",
        "inner/part.py": "def f():\n    import late_one\n",
        "late_one.py": "X = 1\n",
    }

    def of(folder: str, changed: str = "") -> dict[str, str]:
        for module in ("first_one", "inner", "inner.part", "late_one"):
            sys.modules.pop(module, None)
        for path, text in texts.items():
            write(f"{folder}/{path}", text + ("# edited\n" if path == changed else ""))
        with monkeypatch.context() as patch:
            patch.syspath_prepend(tmp_path / folder)
            importlib.import_module("first_one")
            return reached(["first_one"])

    assert of("one") == of("two")
    changed = of("three", name)
    module = name.removesuffix(".py").replace("/", ".")
    assert {k for k in changed if changed[k] != of("one")[k]} == {module}


def test_text_counts_as_it_was_when_it_was_executed(write: Write) -> None:
    path = write("first_one.py", "X = 1\n")
    importlib.import_module("first_one")
    before = reached(["first_one"])
    path.write_text("X = 2\n")
    assert reached(["first_one"]) == before
    assert edited(before) == ["first_one"]
    importlib.reload(sys.modules["first_one"])
    assert reached(["first_one"]) != before
    assert edited(before) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("def f(): return 1\n", "def f(): return 2\n"),
        ("SCALE = 2.0\n", "SCALE = 3.0\n"),
        ("class A:\n    def f(self): return 1\n", "class A:\n    def f(self): return self\n"),
        ("class A:\n    @staticmethod\n    def f(): return 1\n", "class A: pass\n"),
        ("def f(): return 1\n", "this is no Python\n"),
        ("SCALE = 2.0\ndef f(): return 1\n", "def f(): return 2\n"),
    ],
)
def test_edit_between_import_and_the_first_look_is_noticed(
    write: Write, before: str, after: str
) -> None:
    path = write("first_one.py", before)
    module = importlib.import_module("first_one")
    path.write_text(after)
    assert reached(["first_one"]) == {"first_one": UNKNOWN}
    path.write_text(before)
    importlib.reload(module)
    assert reached(["first_one"])["first_one"] != UNKNOWN


@pytest.mark.parametrize("change", [{"SCALE": 3.0}, {"f": lambda: 2}])
def test_module_that_another_one_changes_is_not_what_its_text_says(
    write: Write, monkeypatch: pytest.MonkeyPatch, change: dict[str, object]
) -> None:
    write("first_one.py", "SCALE = 2.0\ndef f(): return 1\n")
    module = importlib.import_module("first_one")
    before = reached(["first_one"])
    for name, value in change.items():
        monkeypatch.setattr(module, name, value)
    assert reached(["first_one"]) != before


@pytest.mark.parametrize(
    "text",
    [
        "COUNT = 0\ndef f():\n    global COUNT\n    COUNT += 1\nf()\n",
        "X = 1\nfor X in range(3): pass\n",
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass A:\n    x: int = 1\n",
        "import functools\n@functools.lru_cache\ndef f(): return {1, 2, 3} | {'a', 'b'}\n",
        "def f(x): return x in {'a', 'b'}\nclass A:\n    @property\n    def g(self): return 1\n",
    ],
)
def test_module_that_changes_its_own_names_is_known(write: Write, text: str) -> None:
    write("first_one.py", text)
    module = importlib.import_module("first_one")
    for value in vars(module).copy().values():
        if isinstance(value, types.FunctionType) and value.__module__ == "first_one":
            for _ in range(50):  # the interpreter rewrites code that runs often
                value(*[1] * value.__code__.co_argcount)
    assert reached(["first_one"])["first_one"] != UNKNOWN


def test_module_that_imports_when_asked_is_not_asked(write: Write) -> None:
    """An alias of a module that needs a package which is absent, as transformers has them."""
    write("first_one.py", "import alias\n")
    sys.modules["alias"] = alias = types.ModuleType("alias")
    alias.__getattr__ = lambda name: importlib.import_module("absent_one")  # type: ignore[method-assign]
    assert reached(["first_one"])["alias"] == UNKNOWN


def test_module_without_a_file_is_unknown(write: Write) -> None:
    sys.modules["made_up"] = types.ModuleType("made_up")
    write("first_one.py", "import made_up\n")
    importlib.import_module("first_one")
    assert reached(["first_one"])["made_up"] == UNKNOWN


def test_module_that_was_loaded_by_its_path_counts_by_its_text(write: Write) -> None:
    write("by_path.py", "def f(): return 1\n")
    write(
        "first_one.py",
        "import importlib.util, pathlib\n"
        "path = pathlib.Path(__file__).with_name('by_path.py')\n"
        "spec = importlib.util.spec_from_file_location('loose', path)\n"
        "loose = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(loose)\n",
    )
    importlib.import_module("first_one")
    assert len(reached(["first_one"])["loose"]) == 64
    sources._LOOSE.clear()
    write("second_one.py", "from first_one import loose\nf = loose.f\ndel loose\n")
    importlib.import_module("second_one")
    del sys.modules["first_one"].loose  # type: ignore[attr-defined]
    assert reached(["second_one"])["loose"] == UNKNOWN


def test_text_that_was_executed_by_hand_counts(write: Write) -> None:
    module = types.ModuleType("by_hand")
    module.__file__ = str(write("by_hand.py", "import late_one\n"))
    write("late_one.py", "")
    sys.modules["by_hand"] = module
    executed(module, b"X = 1\n")
    assert set(reached(["by_hand"])) == {"by_hand"}
    assert edited(["by_hand"]) == ["by_hand"]


def test_installed_packages_count_by_their_version(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "site-packages"
    monkeypatch.syspath_prepend(folder)
    write("site-packages/layers_of_others.py", "import first_one\n")
    write("first_one.py", "from layers_of_others import *\nimport numpy, torch, mechbench\n")
    importlib.import_module("layers_of_others")
    without = reached(["first_one"])
    assert set(without) == {"first_one", "layers_of_others"}  # no metadata: by its text
    distribution(folder, "layers_of_others", "1.5")
    found = reached(["first_one"])
    assert found == {"first_one": without["first_one"], "layers_of_others": "1.5"}


def test_package_of_several_distributions_counts_by_all(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "site-packages"
    monkeypatch.syspath_prepend(folder)
    write("site-packages/several/layers.py", "")
    importlib.import_module("several.layers")
    for name, number in (("several-core", "0.1"), ("several-layers", "0.2")):
        distribution(folder, name, number)
        info = folder / f"{name.replace('-', '_')}-{number}.dist-info"
        (info / "top_level.txt").write_text("several\n")
    assert reached(["several.layers"]) == {"several-core": "0.1", "several-layers": "0.2"}


def test_version_of_what_was_installed_from_a_folder_or_a_commit_says_which(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    file = write("local_layers.py", "X = 1\n")
    distribution(tmp_path, "local_layers", "1.0", url="file:///x", dir_info={})
    one = version("local_layers")
    file.write_text("X = 2\n")
    assert one.startswith("1.0+")
    assert version("local_layers") != one
    commit = {"vcs": "git", "commit_id": "0123456789abcdef"}
    distribution(tmp_path, "git_layers", "1.0", url="https://x", vcs_info=commit)
    assert version("git_layers") == "1.0+0123456789ab"
    with pytest.raises(metadata.PackageNotFoundError):
        version("nowhere_at_all")


def test_what_mechbench_stands_on_is_what_its_metadata_says() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    core = {n.partition(">")[0] for n in tomllib.loads(text)["project"]["dependencies"]}
    assert core | {"mechbench"} == set(sources._OWN)


def test_local_is_what_is_not_installed(tmp_path: Path) -> None:
    assert is_local(str(tmp_path / "x.py"))
    assert is_local(__file__)
    assert not is_local(str(json.__file__))
    assert not is_local(str(pytest.__file__))
    assert not is_local(str(sources.__file__))
    assert not is_local("/usr/lib/python3/dist-packages/x.py")
