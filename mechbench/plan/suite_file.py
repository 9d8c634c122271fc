"""Reading tasks/NAME.toml, and saying on which line a key is unknown or wrong. No torch.

The keys are described in tasks/README.md.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mechbench.catalogue.settings import setting, shown
from mechbench.errors import ConfigError, nearest
from mechbench.plan.suite import BUDGETS, GRID, Choice, Suite, error_at
from mechbench.plan.toml_lines import Key, key_lines
from mechbench.record.config import PROTOCOL, TUNING_SEED, Config

# Fields of Config that a suite sets by its own keys, or that nobody sets.
_ELSEWHERE = {
    "operator", "task", "operator_options", "task_options", "task_version", "lr", "seed",
    "device_type", "plugins", "sources", "max_seqlen", "protocol",
}  # fmt: skip
_SETTINGS = (
    *(f.name for f in fields(Config) if f.name not in _ELSEWHERE),
    *(name for name in BUDGETS if name != "budget_tokens"),  # that one is a field
)
_TOP = (
    "title", "question", "protocol", "seeds", "lrs", "tuning_seeds", "carry_on", "plugins",
    "settings", "grid", "tasks", "operators",
)  # fmt: skip
_CARRIED_ON = 1000  # times the budget, at most
_TUNING_SEEDS = [TUNING_SEED, TUNING_SEED + 1, TUNING_SEED + 2]  # unless the suite has its own
_CHOICE = ("name", "options", "settings", "grid")
_TASK, _OPERATOR = (*_CHOICE, "seeds"), (*_CHOICE, "lrs")


def read_suite(path: Path | str) -> Suite:
    """Read and check a suite file.

    Raises:
        ConfigError: unreadable, no TOML, or a key that is unknown, missing or of the wrong type;
            file, line and key are named.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"suite {path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # of TOML, or of UTF-8
        raise ConfigError(f"{path} is no TOML file: {error}") from error
    return _Reader(path, key_lines(text)).suite(data)


def _repeats(values: list[Any]) -> bool:
    try:
        return len(set(values)) < len(values)
    except TypeError:  # lists or tables among them
        return any(value in values[:i] for i, value in enumerate(values))


@dataclass(frozen=True)
class _Reader:
    path: Path
    lines: Mapping[Key, int]

    def suite(self, data: dict[str, Any]) -> Suite:
        self._known(data, _TOP, ())
        for key in ("title", "tasks", "operators"):
            if key not in data:
                raise self._error((), f"the key {key!r} is missing")
        protocol = data.get("protocol", PROTOCOL)
        if protocol != PROTOCOL:
            raise self._error(
                ("protocol",), f"the suite is for protocol {protocol}, this is {PROTOCOL}"
            )
        return Suite(
            path=self.path,
            title=self._text(data, "title"),
            question=self._text(data, "question") if "question" in data else "",
            seeds=self._seeds(data.get("seeds", [0]), ("seeds",)),
            lrs=self._lrs(data.get("lrs", []), ("lrs",)),
            tuning_seeds=self._tuning_seeds(data.get("tuning_seeds", _TUNING_SEEDS)),
            carry_on=self._carry_on(data.get("carry_on", 1)),
            plugins=self._plugins(data.get("plugins", [])),
            settings=self._settings(data.get("settings", {}), ("settings",)),
            grid=self._grid(data.get("grid", {}), ("grid",)),
            tasks=self._choices(data, "tasks", _TASK),
            operators=self._choices(data, "operators", _OPERATOR),
            lines=self.lines,
        )

    def _error(self, key: Key, text: str) -> ConfigError:
        return error_at(self.path, self.lines, key, text)

    def _known(self, table: Any, choices: tuple[str, ...], where: Key) -> None:
        if not isinstance(table, dict):
            raise self._error(where, f"is {table!r}: expected a table")
        for key in table:
            if key not in choices:
                raise self._error((*where, key), f"unknown key: {nearest(key, choices)}")

    def _text(self, data: dict[str, Any], key: str) -> str:
        if not isinstance(data[key], str) or not data[key].strip():
            raise self._error((key,), f"is {data[key]!r}: expected a text")
        return str(data[key])

    def _list(self, value: Any, where: Key) -> list[Any]:
        if not isinstance(value, list) or not value:
            raise self._error(where, f"is {value!r}: expected a list of one or more values")
        if _repeats(value):
            raise self._error(where, f"is {value!r}: a value stands in it twice")
        return value

    def _seeds(self, value: Any, where: Key) -> tuple[int, ...]:
        seeds = self._each(value, "seed", where, "is no seed: expected 0, 1, 2 ...")
        for seed in seeds:
            if seed >= TUNING_SEED:
                raise self._error(
                    where,
                    f"{seed} is a seed that chooses learning rates: expected below {TUNING_SEED}",
                )
        return tuple(seeds)

    def _tuning_seeds(self, value: Any) -> tuple[int, ...]:
        where: Key = ("tuning_seeds",)
        expected = f"is no seed that chooses learning rates: expected {TUNING_SEED} or more"
        seeds = self._each(value, "seed", where, expected)
        for seed in seeds:
            if seed < TUNING_SEED:
                raise self._error(where, f"{seed} {expected}, which no reported seed is")
        return tuple(seeds)

    def _carry_on(self, value: Any) -> int:
        if type(value) is not int or not 1 <= value <= _CARRIED_ON:
            text = f"is {value!r}: expected a whole number of 1 to {_CARRIED_ON} times the budget"
            raise self._error(("carry_on",), text)
        return value

    def _lrs(self, value: Any, where: Key) -> tuple[float, ...]:
        if value == "grid":
            return GRID
        return tuple(self._each(value, "lr", where, "is no learning rate: expected above 0"))

    def _each(self, value: Any, name: str, where: Key, expected: str) -> list[Any]:
        if value == [] and name == "lr":
            return []
        out = []
        for item in self._list(value, where):
            try:
                out.append(setting(name, item))
            except ConfigError as error:
                most = str(error).rpartition(": expected at most ")
                text = f"is too large: expected at most {most[2]}" if most[1] else expected
                raise self._error(where, f"{shown(item)} {text}") from error
        return out

    def _plugins(self, value: Any) -> tuple[str, ...]:
        if value == []:
            return ()
        for name in self._list(value, ("plugins",)):
            if not isinstance(name, str):
                raise self._error(("plugins",), f"is {value!r}: expected file names")
        # Beside the suite; of the copy in a leaderboard's folder, as the command line finds it.
        beside = [(self.path.parent / name, Path(name)) for name in value]
        return tuple(str(b if b.exists() or not here.exists() else here) for b, here in beside)

    def _settings(self, value: Any, where: Key) -> dict[str, Any]:
        self._known(value, _SETTINGS, where)
        out = {key: self._setting(key, given, (*where, key)) for key, given in value.items()}
        first, *others = [key for key in BUDGETS if key in value] or [""]
        if others:
            raise self._error((*where, others[0]), f"stands beside {first}: give one of the two")
        return out

    def _setting(self, key: str, value: Any, where: Key) -> Any:
        try:
            return setting(key, value)
        except ConfigError as error:
            raise self._error(where, str(error).removeprefix(f"{key} ")) from error

    def _grid(self, value: Any, where: Key) -> dict[str, list[Any]]:
        self._known(value, (*_SETTINGS, "task", "operator"), where)
        out: dict[str, list[Any]] = {}
        for key, values in value.items():
            if key in ("task", "operator"):
                if not isinstance(values, dict):
                    raise self._error((*where, key), f"expected {key}.OPTION = [VALUES]")
                for option, inner in values.items():
                    out[f"{key}.{option}"] = self._list(inner, (*where, key, option))
                continue
            out[key] = [
                self._setting(key, one, (*where, key)) for one in self._list(values, (*where, key))
            ]
        return out

    def _choices(self, data: dict[str, Any], key: str, keys: tuple[str, ...]) -> tuple[Choice, ...]:
        out = []
        for i, given in enumerate(self._list(data[key], (key,))):
            where: Key = (key, i)
            table = {"name": given} if isinstance(given, str) else given
            self._known(table, keys, where)
            name = table.get("name")
            if not isinstance(name, str) or not name:
                raise self._error(where, f"is {given!r}: expected a name, or a table with one")
            options = table.get("options", {})
            if not isinstance(options, dict):
                raise self._error((*where, "options"), f"is {options!r}: expected a table")
            out.append(
                Choice(
                    name,
                    where,
                    options,
                    self._settings(table.get("settings", {}), (*where, "settings")),
                    self._grid(table.get("grid", {}), (*where, "grid")),
                    self._lrs(table.get("lrs", []), (*where, "lrs")),
                    self._seeds(table["seeds"], (*where, "seeds")) if "seeds" in table else (),
                )
            )
        return tuple(out)
