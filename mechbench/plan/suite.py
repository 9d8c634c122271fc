"""A suite, which says what is measured, and its expansion to cells. No torch.

Torch is imported once, when the first cell is resolved.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from mechbench.catalogue.bounds import CELLS
from mechbench.catalogue.plugins import load_plugins
from mechbench.catalogue.registry import OPERATORS, TASKS
from mechbench.errors import ConfigError
from mechbench.plan.resolve import resolve
from mechbench.plan.toml_lines import Key, line_of
from mechbench.record.config import Config
from mechbench.tasks.base import make_task, task_parameters

BUDGET_SEQUENCES = "budget_sequences"  # training sequences at full length
BUDGET_EPOCHS = "budget_epochs"  # the same, as times that n_train examples are seen
BUDGETS = ("budget_tokens", BUDGET_SEQUENCES, BUDGET_EPOCHS)
# Learning rates, three to each side of the default: with two, h3 and s4d want the largest.
GRID = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)


@dataclass(frozen=True)
class Choice:
    """An operator or task that a suite names; grid keys are settings, "task.X" and "operator.X".

    Rates are of operators, seeds of tasks: every operator is reported as often at a point.
    """

    name: str
    where: Key
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    lrs: tuple[float, ...] = ()
    seeds: tuple[int, ...] = ()  # empty: the suite's


@dataclass(frozen=True)
class Cell:
    """One model to train.

    Attributes:
        config: the resolved configuration.
        cell_id: its hash.
        group: the same for the cells that differ in seed and learning rate only.
        call: the keyword arguments of `mechbench.run` that resolve to it on this machine.
        most_tokens: budget up to which it goes on while it is not flat; 0: its own.
    """

    config: Config
    cell_id: str
    group: str
    call: Mapping[str, Any]
    most_tokens: int = 0

    @property
    def budgets(self) -> tuple[int, ...]:
        """The budgets that it may end with: its own, and twice the one before up to the most."""
        found = [self.config.budget_tokens]
        while found[-1] < self.most_tokens:
            found.append(min(2 * found[-1], self.most_tokens))
        return tuple(found)


@dataclass(frozen=True)
class Suite:
    """A suite as its file says; that names and options exist is checked by `cells`."""

    path: Path
    title: str
    question: str
    seeds: tuple[int, ...]
    lrs: tuple[float, ...]  # empty: the default
    tuning_seeds: tuple[int, ...]  # that choose between learning rates, and are not reported
    carry_on: int  # times the budget, that reported cells go on to while they are not flat
    plugins: tuple[str, ...]
    settings: Mapping[str, Any]
    grid: Mapping[str, Sequence[Any]]
    tasks: tuple[Choice, ...]
    operators: tuple[Choice, ...]
    lines: Mapping[Key, int]

    @property
    def name(self) -> str:
        """Name of the suite and of its leaderboard."""
        return self.path.stem

    def cells(self, device: str = "auto", dtype: str = "auto") -> list[Cell]:
        """Return every cell once, in the order of the file.

        Cells that differ in their budget only are one, of the largest: it is trained through the
        others. Where there are several learning rates, the cells that choose between them are
        among these (`Config.tunes`), and every rate stands with every seed.

        Args:
            device: "auto", "cpu", "cuda" or "cuda:N": where the cells are to run.
            dtype: as in `resolve`; a suite's own `dtype` counts more.

        Raises:
            ConfigError: a name, option or value that does not exist or does not fit; file, line
                and key are named.
            PluginError: a plugin cannot be loaded.
        """
        self._check_size()
        self._check_trials()
        load_plugins(self.plugins)
        for registry, choices in ((OPERATORS, self.operators), (TASKS, self.tasks)):
            for choice in choices:  # all names before torch is imported for the first cell
                try:
                    registry.entry(choice.name)
                except ConfigError as error:
                    raise self.error(choice.where, str(error)) from error
        found: dict[str, Cell] = {}
        for task, operator in itertools.product(self.tasks, self.operators):
            for point in self._points(task, operator):
                for cell in self._resolved(point, operator, device, dtype):
                    known = found.setdefault(cell.cell_id, cell)
                    if known.config.budget_tokens < cell.config.budget_tokens:
                        found[cell.cell_id] = cell
        return list(found.values())

    def _check_size(self) -> None:
        n = 0
        for task, operator in itertools.product(self.tasks, self.operators):
            axes = {**self.grid, **task.grid, **operator.grid}  # the inner one counts
            points = math.prod(len(values) for values in axes.values())
            lrs = operator.lrs or self.lrs or (0.0,)
            n += points * len(lrs) * len((*self._tuning(lrs), *(task.seeds or self.seeds)))
        if n > CELLS.most:
            raise self.error((), f"{n} {CELLS.what}: expected at most {CELLS.most} ({CELLS.why})")

    def _check_trials(self) -> None:
        """Refuse to choose the rate of one operator with more trials than that of another."""
        counts = [len(operator.lrs or self.lrs or (0.0,)) for operator in self.operators]
        for count, operator in zip(counts, self.operators, strict=True):
            if count != counts[0]:
                raise self.error(
                    (*(operator if operator.lrs else self.operators[0]).where, "lrs"),
                    f"{operator.name} would have {count} learning rates and "
                    f"{self.operators[0].name} {counts[0]}: expected as many for every operator",
                )

    def _tuning(self, lrs: Sequence[float]) -> tuple[int, ...]:
        """Return the seeds that choose between rates: none where there is one."""
        return self.tuning_seeds if len(lrs) > 1 else ()

    def _points(self, task: Choice, operator: Choice) -> Iterator[_Point]:
        base = _Point(operator, task)
        base.set(self.settings, ("settings",))
        base.set(task.settings, (*task.where, "settings"))
        base.set(operator.settings, (*operator.where, "settings"))
        base.set(task.options, (*task.where, "options"), "task.")
        base.set(operator.options, (*operator.where, "options"), "operator.")
        axes: dict[str, tuple[Sequence[Any], Key]] = {}
        for grid, where in (
            (self.grid, ("grid",)),
            (task.grid, (*task.where, "grid")),
            (operator.grid, (*operator.where, "grid")),
        ):
            axes |= {key: (values, where) for key, values in grid.items()}
        for combination in itertools.product(*(values for values, _ in axes.values())):
            point = base.copy()
            for (key, (_, where)), value in zip(axes.items(), combination, strict=True):
                point.set({key: value}, where)
            yield point

    def _resolved(self, point: _Point, operator: Choice, device: str, dtype: str) -> Iterator[Cell]:
        """Resolve a point once: its seeds and learning rates differ in nothing else."""
        try:
            call = {"dtype": dtype, **point.call()}
            config, _ = resolve(**call, device=device)
        except ConfigError as error:
            self._blame(point, error)
        group = config.varied(1.0, 0).cell_id
        lrs = operator.lrs or self.lrs or (config.lr,)
        # What chooses a rate is scored where it is trained: at long lengths that takes longer than
        # to train it. But for models that are built for the longest.
        short = (config, call) if config.max_seqlen else _at_trained_length(config, call)
        tuning = self._tuning(lrs)
        for lr in lrs:
            for seed in (*tuning, *(point.task.seeds or self.seeds)):
                whole, asked = short if seed in tuning else (config, call)
                cell = whole.varied(lr, seed)
                most = 0 if seed in tuning else self.carry_on * cell.budget_tokens
                yield Cell(cell, cell.cell_id, group, {**asked, "lr": lr, "seed": seed}, most)

    def _blame(self, point: _Point, error: ConfigError) -> NoReturn:
        """Say where the value stands that an error is about: what its text names first."""
        text = str(error)
        words = set(re.findall(r"[\w-]+", text.partition(": ")[0]))
        if "budget_tokens" in words:
            words |= set(BUDGETS)  # it follows from whichever is given
        places = [place for key, place in point.places.items() if key.split(".")[-1] in words]
        choice = point.task if point.task.name in words else point.operator
        raise self.error([*places, choice.where][0], text) from error

    def error(self, key: Key, text: str) -> ConfigError:
        """Return the error that names the file, the line and the key."""
        return error_at(self.path, self.lines, key, text)


def error_at(path: Path, lines: Mapping[Key, int], key: Key, text: str) -> ConfigError:
    """Return the error "FILE:LINE: KEY: TEXT"."""
    line = line_of(lines, key)
    name = ""
    for part in key:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
    return ConfigError(f"{path}{f':{line}' if line else ''}: {f'{name}: ' if name else ''}{text}")


def _at_trained_length(config: Config, call: dict[str, Any]) -> tuple[Config, dict[str, Any]]:
    """Return a configuration, and the call for it, that is scored at no other length."""
    scored = dataclasses.replace(config, eval_seqlens=(config.seqlen,))
    return scored, {**call, "eval_seqlens": ()}


@dataclass
class _Point:
    """One combination of the grid: its values, and where each stands in the file."""

    operator: Choice
    task: Choice
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[str, Key] = field(default_factory=dict)

    def copy(self) -> _Point:
        return _Point(self.operator, self.task, dict(self.values), dict(self.places))

    def set(self, values: Mapping[str, Any], where: Key, kind: str = "") -> None:
        for key, value in values.items():
            if key in BUDGETS:  # the inner one counts
                for budget in BUDGETS:
                    self.values.pop(budget, None)
                    self.places.pop(budget, None)
            self.values[kind + key] = value
            self.places[kind + key] = (*where, *key.split("."))

    def call(self) -> dict[str, Any]:
        """Return the keyword arguments of `resolve` and `mechbench.training.cell.run`."""
        task_options = self._of("task.")
        out = {key: value for key, value in self.values.items() if "." not in key}
        sequences = out.pop(BUDGET_SEQUENCES, None)
        epochs = out.pop(BUDGET_EPOCHS, None)
        if epochs is not None:
            if not out.get("n_train"):
                raise ConfigError(f"{BUDGET_EPOCHS} needs n_train, the examples of an epoch")
            sequences = epochs * out["n_train"]
        if sequences is not None:
            lengths = {"vocab_size": out.get("vocab_size"), "seqlen": out.get("seqlen")}
            made = make_task(self.task.name, **lengths, **task_parameters(task_options))
            out["budget_tokens"] = sequences * made.input_seqlen
        return {
            **out,
            "operator": self.operator.name,
            "task": self.task.name,
            "operator_options": self._of("operator."),
            "task_options": task_options,
        }

    def _of(self, kind: str) -> dict[str, Any]:
        return {k.removeprefix(kind): v for k, v in self.values.items() if k.startswith(kind)}
