from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from mechbench.errors import ConfigError
from mechbench.plan import suite_names
from mechbench.plan.suite_file import read_suite
from mechbench.plan.suite_names import find_suite, shipped_suites

ROOT = Path(__file__).parents[2]


def test_every_suite_of_the_repository_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    suites = shipped_suites()
    assert sorted(suites) == sorted(path.stem for path in (ROOT / "tasks").glob("*.toml"))
    assert {name: read_suite(find_suite(name)).name for name in suites} == {n: n for n in suites}


def test_a_wheel_has_them_inside_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    inside = Path(wheel["targets"]["wheel"]["sources"]["tasks"])
    folder = tmp_path / inside
    folder.mkdir(parents=True)
    (folder / "mine.toml").touch()
    monkeypatch.setattr(suite_names, "_PACKAGE", tmp_path / "mechbench")
    assert shipped_suites() == {"mine": folder / "mine.toml"}


@pytest.mark.parametrize("given", ["quick.toml", "tasks/quick", "./quick", "tasks/quick.toml", "."])
def test_a_path_stays_a_path(given: str) -> None:
    assert find_suite(given) == Path(given)


def test_an_unknown_name_is_one_line_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"^unknown suite 'quik': did you mean 'quick'\? .*mad"):
        find_suite("quik")
