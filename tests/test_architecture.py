"""The house, read from its imports: what import-linter's floors do not say."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

import mechbench

ROOT = Path(mechbench.__file__).parent
TESTS = Path(__file__).parent

# What need not compute loads no torch, so that `--help` and wrong arguments answer at once.
TORCH_FREE_FOLDERS = (
    "catalogue", "cli", "console", "errors", "leaderboard", "plan", "record", "report", "tasks",
)  # fmt: skip
TORCH_FREE = ("bench.fit", "bench.plot", "bench.record", "bench.table")


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


@cache
def imports(module: str) -> frozenset[str]:
    """Return what of mechbench a module imports, anywhere in its text."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mechbench":
            base = (node.module or "").partition(".")[2]
            for alias in node.names:
                if (base, alias.name) == ("", "__version__"):
                    continue  # a constant
                inner = f"{base}.{alias.name}".strip(".")
                # `from mechbench.ops import fft_conv` means the function, from the package
                as_module = inner in MODULES and (base != "ops" or module.startswith("ops."))
                found.add(inner if as_module else base)
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names if a.name.split(".")[0] == "mechbench"]
            found.update(name.partition(".")[2] for name in names)
    return frozenset(found)


def test_the_house_is_read_at_all() -> None:
    assert {"errors", "ops.fft_conv", "operators.hyena", "cli.run", ""} <= set(MODULES)
    wanted = {"catalogue.registry", "errors", "operators.base", "ops"}
    wanted = {"catalogue.registry", "errors", "filters.base", "ops"}
    assert imports("operators.hyena") >= wanted
    assert "ops.fft_conv.backends" in imports("ops.fft_conv")


def test_every_folder_is_a_floor() -> None:
    """What import-linter is not told of it does not check."""
    settings = tomllib.loads((ROOT.parent / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = settings["tool"]["importlinter"]["contracts"]
    floors = {name.strip() for layer in contract["layers"] for name in layer.split("|")}
    top = {module.split(".")[0] for module in MODULES} - {"", "__main__"}
    assert floors == {f"mechbench.{name}" for name in top}


@pytest.mark.parametrize("folder", ["operators", "tasks"])
def test_one_component_does_not_import_another(folder: str) -> None:
    components = {
        m for m in MODULES if m.startswith(f"{folder}.") and "@register" in MODULES[m].read_text()
    }
    assert len(components) >= 2
    for module in components:
        assert not imports(module) & components, module


def test_nothing_imports_tests_or_scripts() -> None:
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            assert not {n.split(".")[0] for n in names} & {"tests", "scripts"}, module


def torch_free() -> list[str]:
    folders = [m for m in MODULES if m.split(".")[0] in TORCH_FREE_FOLDERS]
    return [*TORCH_FREE, *folders]


def test_torch_free_modules_load_without_torch() -> None:
    """In one fresh process; what they import counts too."""
    names = [f"mechbench.{m}" for m in torch_free()]
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules: sys.exit(f'{name} loads torch')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *names], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_module_has_a_test_file_of_its_name() -> None:
    wanted = Counter(p.stem for p in MODULES.values() if p.stem not in ("__init__", "__main__"))
    there = Counter(p.stem.removeprefix("test_") for p in TESTS.rglob("test_*.py"))
    missing = wanted - there
    assert not missing, f"no tests/**/test_NAME.py for {sorted(missing)}"


def test_files_stay_short() -> None:
    long = {m: n for m, p in MODULES.items() if (n := len(p.read_text().splitlines())) > 400}
    assert not long
