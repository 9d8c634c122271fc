"""What every task gives, and how one is made by name."""

from __future__ import annotations

import dataclasses
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, cast

from mechbench.catalogue.options import resolve_options
from mechbench.catalogue.registry import TASKS
from mechbench.catalogue.settings import setting
from mechbench.errors import ConfigError, MechbenchError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

IGNORE = -100  # target of a position that is not scored
UNKNOWN = -1  # an oracle's answer where its inputs do not determine one
TOLERANCE = 0.1  # a predicted number is right this near to the target (of unit variance)


@dataclass(frozen=True)
class Batch:
    """Examples of a task.

    Attributes:
        inputs: (B, L_in) int64 tokens; of a task with `input_dim` d, (B, L_in, d) float32 numbers.
        targets: (B, L_in) int64 or float32, the scored answers, -100 elsewhere.
        dense_targets: (B, L_in), every answer that the inputs before it determine (a
            superset of `targets`): what training may score and evaluation reports second.
    """

    inputs: Tensor
    targets: Tensor
    dense_targets: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """Return the batch with `function` applied to each of its tensors."""
        return Batch(*(function(t) for t in (self.inputs, self.targets, self.dense_targets)))


def matches(answers: Tensor, targets: Tensor) -> Tensor:
    """Return where answers are right: the same token, or a number within TOLERANCE."""
    if targets.is_floating_point():
        return (answers - targets).abs() <= TOLERANCE
    return answers == targets


class Task(ABC):
    """A distribution over (inputs, targets): a frozen dataclass with `vocab_size` and `seqlen`.

    `chance`, `sample` and `oracle` are a task's own; of the rest it gives what is not as here.
    """

    __slots__ = ()  # of the dataclass alone, see `as_task`

    vocab_size: int
    seqlen: int

    version: ClassVar[int] = 1  # raised whenever the same seed gives other examples
    # vocab_size and seqlen of the bare command, which asks for those that are not here.
    defaults: ClassVar[Mapping[str, Any]] = {}
    # What people call `vocab_size`, the field and the option: "vocab_size 20", "dimensions 5".
    vocab_name: ClassVar[str] = "vocab_size"
    # Whether training and test ask for the same by the task's definition. Where they don't, no
    # training example may stand in an evaluation set.
    train_is_test: ClassVar[bool] = False

    @property
    @abstractmethod
    def chance(self) -> float:
        """Accuracy of a uniform guess among the possible answers."""

    @abstractmethod
    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw a batch on the generator's device; nothing else makes randomness."""

    @abstractmethod
    def oracle(self, inputs: Tensor) -> Tensor:
        """Solve from the inputs alone: (B, L_in) -> (B, L_in), -1 where they do not tell.

        `inputs` may also be only the last W tokens up to a scored position; that is how the
        required context is measured. Rows need not be cut at the same position.
        """

    @property
    def input_seqlen(self) -> int:
        """L_in: tokens a model reads for one example of nominal length `seqlen`; here all L."""
        return self.seqlen

    @property
    def input_dim(self) -> int:
        """Numbers a position, of a task whose inputs and answers are numbers; 0 of tokens."""
        return 0

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """Baselines that do not solve the task: name to (inputs -> predictions)."""
        return {}

    @property
    def easiest_seqlen(self) -> int:
        """Length at which a curriculum starts; at `seqlen` there is none."""
        return self.seqlen

    def easier(self, seqlen: int) -> Task:
        """Return the task at a shorter length; parameters that are lengths shrink with it."""
        shorter: Task = dataclasses.replace(cast(Any, self), seqlen=seqlen)
        return shorter

    def window_guess(self, inputs: Tensor, at: Tensor) -> Tensor:
        """Return (B,): the likeliest answer at the last position, where the oracle cannot tell.

        `inputs` are the W tokens up to a scored position, `at` (B,) the positions of the last of
        them in their examples. -1 where every answer is as likely as by `chance`: everywhere here,
        so what a short window shows must not bear upon the answer.
        """
        return at * 0 + UNKNOWN

    def describe(self, token: Any) -> str:
        """Return how `mechbench show` prints a token, or a list of `input_dim` numbers."""
        return str(token)


def as_task(made: Any, owner: str) -> Task:
    """Return an object with the members of `Task` that it lacks, if it does not derive from it.

    It gets another class of the same name: name and repr are part of every stream's seed.

    Raises:
        ConfigError: it cannot be a task, or lacks a member that it must have itself.
    """
    whole = task_class(type(made), owner)
    if type(made) is not whole:
        object.__setattr__(made, "__class__", whole)
    return cast(Task, made)


def task_class(cls: Any, owner: str) -> type[Task]:
    """Return `cls`, or a class like it that derives from `Task`.

    Raises:
        ConfigError: it cannot derive from it, or lacks members that only it can give; all are
            named.
    """
    try:
        whole: Any = cls if issubclass(cls, Task) else _derived(cls)
    except TypeError as error:
        raise ConfigError(
            f"{owner} is a {cls.__name__}: expected a frozen dataclass that derives from "
            "mechbench.Task"
        ) from error
    if lacks := sorted(whole.__abstractmethods__):
        raise ConfigError(f"{owner} lacks {', '.join(lacks)}, which mechbench.Task leaves to it")
    return cast(type[Task], whole)


@lru_cache(maxsize=256)
def _derived(cls: Any) -> type[Task]:
    """Return a class like `cls` that derives from `Task`.

    Raises:
        TypeError: there can be none.
    """
    body: dict[str, Any] = {key: getattr(cls, key) for key in ("__module__", "__qualname__")}
    body |= {"__doc__": cls.__doc__, "__slots__": (), "__reduce__": _reduce}
    if dataclasses.is_dataclass(cls):  # a field without a default is no property of `Task` either
        body |= {field.name: None for field in fields(cls) if not hasattr(cls, field.name)}
    return types.new_class(cls.__name__, (cls, Task), exec_body=lambda own: own.update(body))


def _reduce(task: Any) -> tuple[Any, ...]:
    """Pickle by the class that its module has."""
    values = {field.name: getattr(task, field.name) for field in fields(task)}
    return _restored, (type(task).__mro__[1], values)


def _restored(cls: Any, values: Mapping[str, Any]) -> Task:
    made = cls.__new__(cls)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return as_task(made, f"task {cls.__name__}")


RESERVED = ("name", "vocab_size", "seqlen")  # of `make_task`, never parameters of a task


def task_parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a task that `make_task` may take beside the sizes.

    Raises:
        ConfigError: one has a name that is not a parameter's.
    """
    for key in given:
        if key == "name":
            raise ConfigError("a task has no parameter 'name': the task is named by itself")
        if key in RESERVED:
            raise ConfigError(f"{key!r} is no option of the task: give it as the setting {key}")
    return dict(given)


def make_task(
    name: str, *, vocab_size: int | None = None, seqlen: int | None = None, **params: Any
) -> Task:
    """Build the task registered as `name`; lengths and vocabulary default to the task's own.

    Raises:
        ConfigError: unknown task or parameter, or a value out of range.
        SeqlenError: a length that the task cannot have.
    """
    cls = TASKS.load(name)
    owner = f"task {name!r}"
    if isinstance(cls, type):
        task_class(cls, owner)
    sizes = dict(getattr(cls, "defaults", {}))  # of a factory, or a class beside `Task`, perhaps
    for key, value in (("vocab_size", vocab_size), ("seqlen", seqlen)):
        if value is not None:
            sizes[key] = value
        if sizes.get(key) is None:
            raise ConfigError(f"{owner} has no default {key}: give one")
    given = {key: setting(key, sizes[key]) for key in ("vocab_size", "seqlen")}
    options = resolve_options(cls, params, owner=owner, reserved=RESERVED)
    try:
        made = cls(**given, **options)
    except MechbenchError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"{owner} raised {type(error).__name__} when built: {text}") from error
    return as_task(made, owner)
