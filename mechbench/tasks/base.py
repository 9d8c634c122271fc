"""What every task gives, and how one is made by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

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


class Task(Protocol):
    """A distribution over (inputs, targets); a frozen dataclass with `vocab_size` and `seqlen`."""

    version: ClassVar[int]  # raised whenever the same seed gives other examples
    defaults: ClassVar[Mapping[str, Any]]  # vocab_size and seqlen of the bare command
    vocab_size: int
    seqlen: int

    @property
    def train_is_test(self) -> bool:
        """Whether training and test ask for the same by the task's definition.

        Optional, False without it: then no training example may stand in an evaluation set.
        """

    @property
    def input_dim(self) -> int:
        """Numbers a position, of a task whose inputs and answers are numbers, not tokens.

        Optional, 0 without it.
        """

    @property
    def input_seqlen(self) -> int:
        """L_in: tokens a model reads for one example of nominal length `seqlen`."""

    @property
    def chance(self) -> float:
        """Accuracy of a uniform guess among the possible answers."""

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """Baselines that do not solve the task: name to (inputs -> predictions)."""

    @property
    def easiest_seqlen(self) -> int:
        """Length at which a curriculum starts (optional: without it there is none)."""

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw a batch on the generator's device; nothing else makes randomness."""

    def oracle(self, inputs: Tensor) -> Tensor:
        """Solve from the inputs alone: (B, L_in) -> (B, L_in), -1 where they do not tell.

        `inputs` may also be only the last W tokens up to a scored position; that is how the
        required context is measured. Rows need not be cut at the same position.
        """

    def window_guess(self, inputs: Tensor, at: Tensor) -> Tensor:
        """Return (B,): the likeliest answer at the last position, where the oracle cannot tell.

        `inputs` are the W tokens up to a scored position, `at` (B,) the positions of the last of
        them in their examples. -1 where every answer is as likely as by `chance`. Optional, -1
        everywhere without it; then what a short window shows must not bear upon the answer.
        """

    def describe(self, token: Any) -> str:
        """Return how `mechbench show` prints a token, or a list of `input_dim` numbers."""


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
    sizes = dict(getattr(cls, "defaults", {}))
    for key, value in (("vocab_size", vocab_size), ("seqlen", seqlen)):
        if value is not None:
            sizes[key] = value
        if sizes.get(key) is None:
            raise ConfigError(f"{owner} has no default {key}: give one")
    given = {key: setting(key, sizes[key]) for key in ("vocab_size", "seqlen")}
    options = resolve_options(cls, params, owner=owner, reserved=RESERVED)
    try:
        task: Task = cls(**given, **options)
    except MechbenchError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"{owner} raised {type(error).__name__} when built: {text}") from error
    return task
