"""The interface that every task provides, and how a task is built by name."""

from __future__ import annotations

import dataclasses
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
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
UNKNOWN = -1  # an oracle's answer where the inputs do not determine one
TOLERANCE = 0.1  # a predicted number is right within this distance of its unit-variance target


@dataclass(frozen=True)
class Batch:
    """Examples of a task.

    Attributes:
        inputs: (B, L_in) int64 tokens; for a task with `input_dim` d, (B, L_in, d) float32 numbers.
        targets: (B, L_in) int64 or float32, the scored answers, -100 elsewhere.
        dense_targets: (B, L_in), every answer that the preceding inputs determine (a superset of
            `targets`). Training may use it; evaluation reports it as a second figure.
        also: (B, L_in, K) int64, up to K further tokens that are right at each position, -100 for
            the rest; None where an answer is the only right one. Training aims at the targets.
    """

    inputs: Tensor
    targets: Tensor
    dense_targets: Tensor
    also: Tensor | None = None

    @classmethod
    def joined(cls, batches: Sequence[Batch]) -> Batch:
        """Return all the examples of batches, at least one, of one task."""
        import torch

        names = [field.name for field in fields(cls) if getattr(batches[0], field.name) is not None]
        return cls(**{name: torch.cat([getattr(b, name) for b in batches]) for name in names})

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """Return the batch with `function` applied to each of its tensors; one stays one."""
        targets, same = function(self.targets), self.dense_targets is self.targets
        return Batch(
            function(self.inputs),
            targets,
            targets if same else function(self.dense_targets),
            None if self.also is None else function(self.also),
        )


def matches(answers: Tensor, targets: Tensor, also: Tensor | None = None) -> Tensor:
    """Return where answers are right: a token that is accepted, or a number within TOLERANCE.

    Args:
        answers: (...,) tokens or numbers.
        targets: the same shape.
        also: (..., K), see `Batch`.
    """
    if targets.is_floating_point():
        return (answers - targets).abs() <= TOLERANCE
    same = answers == targets
    return same if also is None else same | (answers[..., None] == also).any(-1)


class Task(ABC):
    """A distribution over (inputs, targets): a frozen dataclass with `vocab_size` and `seqlen`.

    Each task defines `chance`, `sample` and `oracle`, and overrides the other members only where
    these defaults do not fit.
    """

    __slots__ = ()  # fields belong to the dataclass alone, see `as_task`

    vocab_size: int
    seqlen: int
    # A task of variable length has this as an option, 0 by default: lengths are then uniform in
    # [min_seqlen, seqlen], and an example ends in padding that nothing scored stands behind. At
    # any other length than the trained one it is scored with 0, which is that length exactly.
    min_seqlen: int = 0

    version: ClassVar[int] = 1  # raised whenever the same seed gives other examples
    # vocab_size and seqlen where the user gives none; a size missing here must be given.
    defaults: ClassVar[Mapping[str, Any]] = {}
    # What people call `vocab_size`, the field and the option: "vocab_size 20", "dimensions 5".
    vocab_name: ClassVar[str] = "vocab_size"
    # Whether, by definition, training and test ask the same questions. If not, no training example
    # may occur in an evaluation set.
    train_is_test: ClassVar[bool] = False

    @classmethod
    def sizes(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return vocab_size and seqlen where the user gives none: `defaults`.

        Args:
            options: all of the task's own, with their values.
        """
        return cls.defaults

    @property
    @abstractmethod
    def chance(self) -> float:
        """Accuracy of a uniform guess among the possible answers.

        Where a constant answer is better, there is a shortcut "most frequent answer" to say so.
        """

    @abstractmethod
    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw a batch on the generator's device, with the generator as the only randomness."""

    @abstractmethod
    def oracle(self, inputs: Tensor) -> Tensor:
        """Solve from the inputs alone: (B, L_in) -> (B, L_in), -1 where they leave it undetermined.

        `inputs` may also be just the last W tokens up to a scored position; this is how the
        required context is measured. Rows may be cut at different positions.
        """

    @property
    def input_seqlen(self) -> int:
        """L_in: tokens a model reads for one example of nominal length `seqlen`; L by default."""
        return self.seqlen

    @property
    def input_dim(self) -> int:
        """Numbers per position if inputs and answers are numbers; 0 if they are tokens."""
        return 0

    @property
    def apart_by(self) -> int:
        """Tokens, from the first on, in which no training example may equal one of a test set.

        All of them by default. A task that asks at every position asks the same of all examples
        with a common beginning: it scores only where these tokens are over.
        """
        return self.input_seqlen

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """Baselines that do not solve the task: name to (inputs -> predictions)."""
        return {}

    @property
    def easiest_seqlen(self) -> int:
        """Length at which a curriculum starts; if it is `seqlen`, there is no curriculum."""
        return self.seqlen

    def easier(self, seqlen: int) -> Task:
        """Return the task at a shorter length; parameters that are lengths shrink with it."""
        least = {"min_seqlen": min(self.min_seqlen, seqlen)} if self.min_seqlen else {}
        shorter: Task = dataclasses.replace(cast(Any, self), seqlen=seqlen, **least)
        return shorter

    def tested(self) -> Task:
        """Return the task of the test set, where that is another distribution by design.

        It has the same vocabulary and lengths. By default training and test draw from one.
        """
        return self

    def window_guess(self, inputs: Tensor, at: Tensor) -> Tensor:
        """Return (B,): the likeliest answer at the last position, where the oracle cannot tell.

        `inputs` are the W tokens up to a scored position; `at` (B,) says where the last of them
        stands in its example. The result is -1 where no answer beats `chance`. This default returns
        -1 everywhere, so it is only right for tasks where a short window carries no information.
        """
        return at * 0 + UNKNOWN

    def describe(self, token: Any) -> str:
        """Return how `mechbench show` prints a token, or a list of `input_dim` numbers."""
        return str(token)


def as_task(made: Any, owner: str) -> Task:
    """Return `made` as a `Task`, with the members it lacks added if it does not derive from `Task`.

    The new class keeps the old name, because name and repr are part of every stream's seed.

    Raises:
        ConfigError: it cannot be a task, or lacks a member that it must define itself.
    """
    whole = task_class(type(made), owner)
    if type(made) is not whole:
        object.__setattr__(made, "__class__", whole)
    return cast(Task, made)


def task_class(cls: Any, owner: str) -> type[Task]:
    """Return `cls`, or a class like it that derives from `Task`.

    Raises:
        ConfigError: `cls` cannot derive from `Task`, or lacks members that it must define itself;
            all of them are named.
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
        TypeError: no such class can be made.
    """
    body: dict[str, Any] = {key: getattr(cls, key) for key in ("__module__", "__qualname__")}
    body |= {"__doc__": cls.__doc__, "__slots__": (), "__reduce__": _reduce}
    if dataclasses.is_dataclass(cls):  # a field without a default must not become `Task`'s property
        body |= {field.name: None for field in fields(cls) if not hasattr(cls, field.name)}
    return types.new_class(cls.__name__, (cls, Task), exec_body=lambda own: own.update(body))


def _reduce(task: Any) -> tuple[Any, ...]:
    """Pickle through the original class, the one that its module holds."""
    values = {field.name: getattr(task, field.name) for field in fields(task)}
    return _restored, (type(task).__mro__[1], values)


def _restored(cls: Any, values: Mapping[str, Any]) -> Task:
    made = cls.__new__(cls)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return as_task(made, f"task {cls.__name__}")


RESERVED = ("name", "vocab_size", "seqlen")  # arguments of `make_task`, never task parameters


def task_parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return `given`, checked to hold only what `make_task` takes besides the sizes.

    Raises:
        ConfigError: a name is reserved and cannot be a parameter.
    """
    for key in given:
        if key == "name":
            raise ConfigError("a task has no parameter 'name': the task is named by itself")
        if key in RESERVED:
            raise ConfigError(f"{key!r} is not an option of the task: give it as the setting {key}")
    return dict(given)


def make_task(
    name: str, *, vocab_size: int | None = None, seqlen: int | None = None, **params: Any
) -> Task:
    """Build the task registered as `name`; length and vocabulary default to the task's own.

    Raises:
        ConfigError: unknown task or parameter, or a value out of range.
        SeqlenError: a length that the task cannot have.
    """
    cls = TASKS.load(name)
    owner = f"task {name!r}"
    if isinstance(cls, type):
        task_class(cls, owner)
    options = resolve_options(cls, params, owner=owner, reserved=RESERVED)
    # A factory, or a class beside `Task`, may have neither.
    own = getattr(cls, "sizes", None)
    sizes = dict(getattr(cls, "defaults", {}) if own is None else own(options))
    for key, value in (("vocab_size", vocab_size), ("seqlen", seqlen)):
        if value is not None:
            sizes[key] = value
        if sizes.get(key) is None:
            raise ConfigError(f"{owner} has no default {key}: give one")
    given = {key: setting(key, sizes[key]) for key in ("vocab_size", "seqlen")}
    try:
        made = cls(**given, **options)
    except MechbenchError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"{owner} raised {type(error).__name__} when built: {text}") from error
    return as_task(made, owner)
