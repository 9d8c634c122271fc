"""What README.md shows is run, and what it names exists."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from mechbench import load_results
from mechbench.cli import COMMANDS, group

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TINY = ("--budget", "20000", "--test-examples", "64", "--device", "cpu", "--quiet")


def fenced(language: str, containing: str) -> str:
    """Return the only code block in `language` that contains a text."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    found = [block for block in blocks if containing in block]
    assert len(found) == 1, f"{len(found)} blocks of {language} with {containing!r}"
    return str(found[0])


def quoted_commands() -> list[str]:
    """Return every command that begins with `mechbench `, in blocks and in running text."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.DOTALL | re.MULTILINE)
    lines = [*re.findall(r"`([^`\n]+)`", prose), *"\n".join(blocks).splitlines()]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return sorted({part for part in parts if part.startswith("mechbench ")})


def python(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_two_set_up_commands_stand_there() -> None:
    lines = README.splitlines()
    assert lines.count("pip install -e . && mechbench run --operator hyena --task recall") == 1
    assert lines.count("pip install -e '.[test]' && pytest") == 1


def test_the_plugin_is_short_and_runs_by_the_command_below_it(tmp_path: Path) -> None:
    plugin = fenced("python", "@mechbench.register_operator")
    assert len([line for line in plugin.splitlines() if line.strip()]) <= 12
    command = shlex.split(fenced("bash", "--plugin"))
    assert command[:2] == ["mechbench", "run"]
    (tmp_path / command[command.index("--plugin") + 1]).write_text(plugin, encoding="utf-8")
    name = command[command.index("--operator") + 1]

    printed = python(tmp_path, "-m", "mechbench", *command[1:], *TINY)

    assert printed.startswith(f"{name} on recall: ")
    (row,) = load_results(tmp_path / "runs").to_dict("records")
    assert (row["operator"], row["status"], row["causal"]) == (name, "ok", True)
    assert row["train_tokens"] > 0
    assert row["n"] == 64


def test_the_python_lines_run_as_they_stand(tmp_path: Path) -> None:
    printed = python(tmp_path, "-c", fenced("python", "mechbench.run("))
    frame = load_results(tmp_path / "runs")
    assert list(frame["status"]) == ["ok"]
    assert f"{frame['accuracy'][0]:.2%}" in printed


@pytest.mark.parametrize("line", quoted_commands())
def test_a_quoted_command_parses(line: str) -> None:
    name, *arguments = shlex.split(line, comments=True)[1:]
    command = group.get_command(click.Context(group), name)
    assert command is not None, f"no subcommand {name!r}"
    if arguments:  # a bare name in running text is no whole command
        with command.make_context(name, arguments):
            pass


def test_every_subcommand_is_mentioned() -> None:
    assert {shlex.split(line)[1] for line in quoted_commands()} == set(COMMANDS)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_local_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = {target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)}
    local = {t for t in targets if t and not re.match(r"[a-z]+:", t)}
    assert not {target for target in local if not (ROOT / target).exists()}


def test_it_stays_short() -> None:
    assert len(README.splitlines()) < 170
