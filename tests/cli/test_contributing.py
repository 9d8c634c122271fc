"""The plugin in CONTRIBUTING.md adds an operator and a task, and nothing else is edited."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import mechbench
from cli.conftest import CommandLine

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_plugin_of_an_operator_and_a_task_runs_and_learns(mechbench_of_module: CommandLine) -> None:
    (plugin,) = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    (command,) = re.findall(r"^mechbench (run .*--plugin.*)$", TEXT, re.MULTILINE)
    arguments = shlex.split(command)
    (mechbench_of_module.folder / arguments[-1]).write_text(plugin, encoding="utf-8")
    commands = [
        (*arguments, "--budget", "200000", "--device", "cpu", "--quiet"),
        ("list", "tasks", "--plugin", arguments[-1]),
        ("show", "previous", "--plugin", arguments[-1]),
    ]
    run, tasks, shown = mechbench_of_module.together(*commands)
    assert run.returncode == 0, run.stderr
    assert "previous" in tasks.stdout
    assert "last token" in shown.stdout, shown.stderr
    (row,) = mechbench.load_results(mechbench_of_module.folder / "runs").to_dict("records")
    assert (row["operator"], row["task"], row["causal"]) == ("shift", "previous", True)
    assert row["accuracy"] > 0.9 > 1 / 8
