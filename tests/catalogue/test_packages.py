from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mechbench.catalogue.packages import FLA, Package, public_names
from mechbench.catalogue.registry import Registry
from mechbench.errors import ConfigError, PluginError

EXPORTS = """from .one import One
from .two import Two, helper

__all__ = ["Two", "One"]
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """Return a package that fails when it is imported."""
    folder = tmp_path / "elsewhere_xyz" / "layers"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('no GPU')\n")
    (folder / "__init__.py").write_text(EXPORTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return Package("x", "elsewhere_xyz", "layers/__init__.py", "elsewhere_xyz", "dist-x", "ex", "s")


def registry(*packages: Package) -> Registry:
    return Registry("operator", "operators", "none", packages=packages)


def test_classes_are_listed_without_importing_their_package(package: Package) -> None:
    catalogue = registry(package)
    assert {"x:One", "x:Two", "hyena"} <= set(catalogue.names())
    entry = catalogue.entry("x:One")
    assert (entry.origin, entry.source, entry.obj) == ("package dist-x", "s", None)
    assert "elsewhere_xyz" not in sys.modules
    with pytest.raises(ConfigError, match="unknown operator 'x:Tow': did you mean 'x:Two'"):
        catalogue.entry("x:Tow")


def test_package_that_does_not_import_is_one_line(package: Package) -> None:
    with pytest.raises(PluginError, match=r"'x:One' of package dist-x cannot be loaded: .*no GPU"):
        registry(package).load("x:One")


def test_absent_package_is_named_with_its_extra_when_asked_for() -> None:
    absent = Package("y", "nowhere_xyz", "layers/__init__.py", "a", "dist-y", "why", "s")
    catalogue = registry(absent)
    assert not [name for name in catalogue.names() if name.startswith("y:")]
    with pytest.raises(ConfigError) as caught:
        catalogue.entry("y:One")
    assert str(caught.value) == (
        "operator 'y:One' needs the package dist-y: pip install 'mechbench[why]'"
    )
    with pytest.raises(ConfigError, match="unknown operator 'z:One'"):
        catalogue.entry("z:One")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (EXPORTS, ["One", "Two"]),
        ("from .a import A, b\nfrom .c import C as D\n", ["A", "D"]),
        ("from .a import A\n__all__ = [n for n in dir()]\n", ["A"]),
        ("", []),
    ],
)
def test_public_names_are_read(text: str, names: list[str]) -> None:
    assert public_names(text) == names


@pytest.mark.skipif(bool(FLA.names()), reason="the package is installed")
def test_command_line_names_the_extra() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mechbench", "check", "--operator", "fla:GatedDeltaNet"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ.copy(),
    )
    assert done.returncode == 2
    assert done.stderr == (
        "mechbench: error: operator 'fla:GatedDeltaNet' needs the package flash-linear-attention: "
        "pip install 'mechbench[fla]'\n"
    )
