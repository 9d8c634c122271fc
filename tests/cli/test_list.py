from __future__ import annotations

import re

import pytest

from cli.conftest import CommandLine, lines
from mechbench.catalogue.registry import MEASURES

PLUGIN = """
import mechbench


@mechbench.register_operator("mine", source="nobody, 2026")
class Mine:
    \"\"\"One of mine.

    With more to say.
    \"\"\"
"""


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("operators", {"hyena", "attention"}),
        ("tasks", {"recall", "induction"}),
        ("filters", {"hyena", "fno"}),
    ],
)
def test_every_name_stands_beside_what_it_is_its_source_and_origin(
    mechbench: CommandLine, kind: str, names: set[str]
) -> None:
    head, *rows = mechbench.works("list", kind).stdout.splitlines()
    assert head.split("  ")[0] == "NAME"
    found = [re.split(r" {2,}", row) for row in rows]
    measured = [row.pop(1) for row in found] if kind == "tasks" else [""] * len(found)
    assert all(len(row) == 4 and all(row) for row in found)
    places = [
        (("", *MEASURES).index(what), row[0]) for what, row in zip(measured, found, strict=True)
    ]
    assert places == sorted(places)
    assert names <= {row[0] for row in found}
    assert {row[3] for row in found if row[0] in names} == {"built-in"}
    starts = {
        tuple(row.index(f" {cell}") for cell in cells[1:])
        for row, cells in zip(rows, found, strict=True)
    }
    assert len(starts) == 1


def test_every_suite_stands_beside_its_title(mechbench: CommandLine) -> None:
    head, *rows = mechbench.works("list", "suites").stdout.splitlines()
    assert head.split() == ["NAME", "TITLE"]
    found = dict(re.split(r" {2,}", row) for row in rows)
    assert found["quick"] == "Quick look"
    assert len(found) == len(rows) > 10


def test_task_of_a_plugin_that_does_not_say_what_it_measures_stands_last(
    mechbench: CommandLine,
) -> None:
    (mechbench.folder / "plugin.py").write_text(PLUGIN.replace("operator", "task"))
    done = mechbench.works("list", "tasks", "--plugin", "plugin.py")
    assert re.split(r" {2,}", done.stdout.splitlines()[-1])[:2] == ["mine", "-"]


def test_plugin_is_listed_with_its_file(mechbench: CommandLine) -> None:
    (mechbench.folder / "plugin.py").write_text(PLUGIN)
    done = mechbench.works("list", "operators", "--plugin", "plugin.py")
    (row,) = [row for row in done.stdout.splitlines() if row.startswith("mine ")]
    assert re.split(r" {2,}", row) == ["mine", "One of mine.", "nobody, 2026", "plugin.py"]


def test_filter_of_a_plugin_is_listed_with_its_file(mechbench: CommandLine) -> None:
    (mechbench.folder / "plugin.py").write_text(PLUGIN.replace("operator", "filter"))
    done = mechbench.inside("list", "filters", "--plugin", "plugin.py")
    (row,) = [row for row in done.stdout.splitlines() if row.startswith("mine ")]
    assert re.split(r" {2,}", row) == ["mine", "One of mine.", "nobody, 2026", "plugin.py"]


@pytest.mark.parametrize("args", [(), ("--help",), *[(n, "--help") for n in ("run", "list")]])
def test_help_needs_no_torch(mechbench: CommandLine, args: tuple[str, ...]) -> None:
    done = mechbench(*args, flags=("-X", "importtime"))
    assert (done.returncode, lines(done.stdout)[0].split()[0]) == (0, "Usage:")
    loaded = set(re.findall(r"\| +(\w+)", done.stderr))
    assert "click" in loaded
    assert "torch" not in loaded


@pytest.mark.parametrize("kind", ["operators", "tasks", "filters", "suites"])
def test_listing_needs_no_torch(mechbench: CommandLine, kind: str) -> None:
    done = mechbench("list", kind, flags=("-X", "importtime"))
    assert done.returncode == 0
    assert "torch" not in re.findall(r"\| +(\w+)", done.stderr)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            (),
            "Missing argument '{operators|tasks|filters|suites}'. Choose from: operators, tasks, "
            "filters, suites",
        ),
        (("operator",), "'operator' is not one of 'operators', 'tasks', 'filters', 'suites'."),
        (("operators", "--plugin", "none.py"), "plugin none.py cannot be read: No such file"),
    ],
)
def test_bad_arguments_are_one_line(
    mechbench: CommandLine, args: tuple[str, ...], message: str
) -> None:
    assert message in mechbench.error("list", *args)
