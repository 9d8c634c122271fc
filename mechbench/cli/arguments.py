"""What several subcommands take: settings, checked as in Python, options and plugin files."""

from __future__ import annotations

from typing import Any

import click

from mechbench.catalogue.bounds import SETTINGS
from mechbench.catalogue.settings import setting


class Setting(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases alone
    """The setting `name`: its text is read, then checked by `mechbench.catalogue.settings.setting`.

    So a value is refused in the same words as in a Python call.
    """

    def __init__(self, name: str) -> None:
        self.setting, self.kind = name, SETTINGS[name].kind
        self.name = {int: "integer", float: "float"}[self.kind]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number that a text says, checked.

        Raises:
            ConfigError: it is not a number, or out of range.
        """
        return setting(self.setting, self._read(value) if isinstance(value, str) else value)

    def _read(self, text: str) -> int | float | str:
        """Return the number; anything else stays a string, which no setting accepts."""
        for kind in (self.kind, float):  # 2e4 is a whole number too
            try:
                number: int | float = kind(text)
                return number
            except ValueError:
                continue
        return text


OPERATOR_OPTION = click.option(
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option of the operator (repeatable).",
)
TASK_OPTION = click.option(
    "--task-option",
    "task_options",
    multiple=True,
    metavar="KEY=VALUE",
    help="Parameter of the task (repeatable).",
)
PLUGIN = click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="FILE.py",
    help="Python file to load first (repeatable).",
)
