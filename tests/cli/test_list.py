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
def test_every_name_stands_beside_what_it_is(
    mechbench: CommandLine, kind: str, names: set[str]
) -> None:
    text = mechbench.works("list", kind).stdout
    assert max(map(len, text.splitlines())) <= 80
    found, groups = listed(text)
    assert names <= found.keys()
    assert all(len(summary.split()) > 1 for summary in found.values())
    assert groups == (list(MEASURES) if kind == "tasks" else [])


def listed(text: str) -> tuple[dict[str, str], list[str]]:
    """Return what each name is, and the headings of the groups."""
    found: dict[str, str] = {}
    groups, name = [], ""
    for line in text.splitlines():
        if row := re.fullmatch(r" {0,2}(\S+) {2,}(\S.*)", line):
            name = row[1]
            found[name] = row[2]
        elif line.startswith("   "):
            found[name] += " " + line.strip()
        elif line:
            groups.append(line)
    return found, groups


def test_every_suite_stands_beside_its_title(mechbench: CommandLine) -> None:
    found, groups = listed(mechbench.works("list", "suites").stdout)
    assert found["quick"] == "Quick look"
    assert (len(found) > 10, groups) == (True, [])


def test_task_of_a_plugin_that_does_not_say_what_it_measures_stands_last(
    mechbench: CommandLine,
) -> None:
    (mechbench.folder / "plugin.py").write_text(PLUGIN.replace("operator", "task"))
    done = mechbench.works("list", "tasks", "--plugin", "plugin.py")
    found, groups = listed(done.stdout)
    assert list(found)[-1] == "mine"
    assert groups[-1] == "of plugins that do not say what"


def test_plugin_is_listed_with_its_file(mechbench: CommandLine) -> None:
    (mechbench.folder / "plugin.py").write_text(PLUGIN)
    done = mechbench.works("list", "operators", "--plugin", "plugin.py")
    assert listed(done.stdout)[0]["mine"] == "One of mine. (plugin.py)"


def test_filter_of_a_plugin_is_listed_with_its_file(mechbench: CommandLine) -> None:
    (mechbench.folder / "plugin.py").write_text(PLUGIN.replace("operator", "filter"))
    done = mechbench.inside("list", "filters", "--plugin", "plugin.py")
    assert listed(done.stdout)[0]["mine"] == "One of mine. (plugin.py)"


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
