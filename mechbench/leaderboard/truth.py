"""Can a result be believed? Its task and model are computed again and compared. Torch comes late.

A result's own baselines (chance, shortcuts, required context) are never stored in a leaderboard:
`Truths.corrected` puts those in that the task gives here. A result is refused if it contradicts the
task: chance, the oracle with the whole input, how many positions are scored, and, where the same
version of mechbench computed them, every other baseline. Baselines of older versions may differ
honestly, since shortcuts are added and windows are measured better; they are replaced in silence.

The evaluation sets of a task, length and seed are drawn once for all results, one at a time.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mechbench import __version__
from mechbench.catalogue.registry import OPERATORS
from mechbench.errors import ConfigError, MechbenchError
from mechbench.plan.curriculum import most_tokens, stage_costs
from mechbench.plan.resolve import scored_task, task_of
from mechbench.record.config import ANYTIME, Config, canonical_json

if TYPE_CHECKING:
    from mechbench.tasks.base import Batch

_MOST_TOKENS = 1 << 28  # of an evaluation set; memory for several copies is needed
_TOLD_TOKENS = 1 << 20  # sets above this take seconds, and are told of
_EQUAL = 1e-6
_LUCK = 1e-6  # probability of an accuracy above the oracle's by the draw of its mistakes
_SQUARED = 2  # the last protocol whose results may count the full square of causal attention,
_SQUARES = 2  # at most so many times what is counted now
_COLUMNS = 8  # scored positions that the required context was measured at before


@dataclass(frozen=True)
class Given:
    """What a task gives at one length: the whole input's oracle as measured now, and before."""

    n: int
    dense_n: int
    shortcuts: dict[str, float]
    required_context: dict[str, float]
    oracles: tuple[float, ...]


class Truths:
    """Recomputes what results claim of their tasks and models; each thing once."""

    def __init__(self, say: Callable[[str], None] = lambda text: None) -> None:
        self._say = say
        self._given: dict[str, Given] = {}
        self._validation: dict[str, int] = {}

    def faults(self, data: dict[str, Any]) -> list[str]:
        """Return what a recomputation refutes, one line each.

        Args:
            data: a result in which `mechbench.leaderboard.validate.faults` found nothing.
        """
        config = Config.from_dict(data["config"])
        try:
            found = [*_spending(data, config), *_model(data, config)]
            task = task_of(config)
            if not math.isclose(data["chance"], task.chance, abs_tol=_EQUAL):
                found.append(f"chance is {data['chance']}: the task's is {task.chance}")
            known = data.get("train_is_test")  # absent from older results
            if known not in (None, bool(task.train_is_test)):
                found.append(f"train_is_test is {known}: the task says otherwise")
            current = data["provenance"]["mechbench"] == __version__ and "sources" in data["config"]
            for evaluation in data["evaluations"]:
                given = self.at(config, evaluation["seqlen"])
                where = f"at {evaluation['seqlen']}: "
                found += [where + fault for fault in _against(evaluation, given, current)]
            return found + self._validated(data, config)
        except MechbenchError as error:
            return [str(error)]
        except Exception as error:  # options of any kind reach operators and tasks
            text = " ".join(str(error).split())[:200]
            return [f"cannot be computed again: {type(error).__name__}: {text}"]

    def corrected(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return a result with the task's own baselines in place of those handed in."""
        config = Config.from_dict(data["config"])
        evaluations = []
        for evaluation in data["evaluations"]:
            given = self.at(config, evaluation["seqlen"])
            own = {"shortcuts": given.shortcuts, "required_context": given.required_context}
            evaluations.append({**evaluation, **own})
        return data | {"chance": task_of(config).chance, "evaluations": evaluations}

    def at(self, config: Config, length: int) -> Given:
        """Return what the task gives at a length that `config` is scored at."""
        key = _key(config, length, config.n_test)
        if key not in self._given:
            self._given[key] = _give(config, length, self._draw(config, length, "test"))
        return self._given[key]

    def _draw(self, config: Config, length: int, split: str) -> Batch:
        from mechbench.data.streams import evaluation_batches
        from mechbench.tasks.base import Batch

        task = scored_task(config, length) if split == "test" else task_of(config, length)
        n = config.n_test if split == "test" else config.n_validation
        tokens = n * task.input_seqlen
        if tokens > _MOST_TOKENS:
            raise ConfigError(
                f"at {length}: {n} examples are {tokens} tokens, more than can be drawn again "
                f"({_MOST_TOKENS})"
            )
        if tokens > _TOLD_TOKENS:
            self._say(f"drawing {n} {split} examples of {config.task} at {length} again")
        batches = evaluation_batches(task, n, config.seed, split)  # type: ignore[arg-type]
        return Batch.joined(batches)

    def _validated(self, data: dict[str, Any], config: Config) -> list[str]:
        """Return whether the validation accuracy is a share of the positions that there are."""
        accuracy = data.get("validation_accuracy")
        if accuracy is None:
            return []
        key = _key(config, config.seqlen, config.n_validation)
        if key not in self._validation:
            self._validation[key] = _scored(self._draw(config, config.seqlen, "validation").targets)
        right = accuracy * (n := self._validation[key])
        if abs(right - round(right)) >= 1e-3:
            return [f"validation_accuracy is {accuracy}: impossible of {n} positions"]
        positions = (data.get("outcome") or {}).get("positions")
        if positions not in (None, n):
            return [f"outcome.positions is {positions}: the task scores {n}"]
        return []


def _key(config: Config, length: int, n: int) -> str:
    return canonical_json(
        [config.task, config.task_options, config.vocab_size, length, n, config.seed]
    )


def _scored(targets: Any) -> int:
    from mechbench.tasks.base import IGNORE

    return int((targets != IGNORE).sum())


def _give(config: Config, length: int, whole: Batch) -> Given:
    from mechbench.data.baselines import required_context, shortcut_accuracies
    from mechbench.tasks.base import IGNORE, UNKNOWN, matches

    task = scored_task(config, length)
    context = required_context(task, whole)
    answers = task.oracle(whole.inputs)
    right = matches(answers, whole.targets, whole.also).double()
    right[answers == UNKNOWN] = task.chance
    scored = whole.targets != IGNORE
    columns = scored.any(0).nonzero().flatten()
    few = columns[:: -(-len(columns) // _COLUMNS)]
    before = right[:, few][scored[:, few]].mean().item()
    return Given(
        _scored(whole.targets),
        _scored(whole.dense_targets),
        shortcut_accuracies(task, whole),
        {str(window): accuracy for window, accuracy in context.items()},
        (context[max(context)], before),
    )


def _against(evaluation: dict[str, Any], given: Given, current: bool) -> list[str]:
    found = [
        f"{name} is {evaluation[name]}: the task gives {value}"
        for name, value in (("n", given.n), ("dense_n", given.dense_n))
        if evaluation[name] != value
    ]
    context = {int(window): a for window, a in evaluation["required_context"].items()}
    widest, oracle = max(context), given.oracles[0]
    whole = max(map(int, given.required_context))
    if widest != whole or all(abs(context[widest] - o) > _EQUAL for o in given.oracles):
        found.append(
            f"the oracle of {widest} tokens has {context[widest]}: the task's of {whole} has "
            f"{oracle}"
        )
    if current:
        found += [
            f"{name} is not the task's: {getattr(given, name)}"
            for name in ("shortcuts", "required_context")
            if not _same(evaluation[name], getattr(given, name))
        ]
    if evaluation["accuracy"] > oracle + _EQUAL and _beyond_luck(evaluation, oracle):
        found.append(f"accuracy {evaluation['accuracy']:.4f} is above the oracle's {oracle:.4f}")
    return found


def _beyond_luck(evaluation: dict[str, Any], oracle: float) -> bool:
    """Return whether more is right than a model as good as the oracle gets by luck with noise."""
    from scipy.stats import binom  # type: ignore[import-untyped]

    return bool(binom.sf(evaluation["correct"] - 1, evaluation["n"], oracle) < _LUCK)


def _same(stored: dict[str, float], own: dict[str, float]) -> bool:
    return stored.keys() == own.keys() and all(abs(stored[k] - own[k]) <= _EQUAL for k in own)


def _spending(data: dict[str, Any], config: Config) -> list[str]:
    """Return whether steps, tokens and the curriculum's stages contradict each other."""
    steps, tokens, every = data["steps"], data["train_tokens"], config.validate_every
    if not steps:
        return []
    task = task_of(config)
    costs = stage_costs(task, config.curriculum)
    most = steps * max(size for _, size in config.curriculum)
    if (excluded := data.get("excluded_examples") or 0) > most:
        return [f"{excluded} examples excluded: {steps} steps had {most}"]
    if (micro := data.get("micro_batch_size") or 1) > max(size for _, size in config.curriculum):
        return [f"micro_batch_size is {micro}: a step has no so many sequences"]
    if config.schedule == "wsd":  # some steps are undone, and their tokens spent
        return []
    shares, stop = [most_tokens(cost) for cost in costs], data.get("stop")
    if config.protocol < ANYTIME:  # early stages shared half of the budget
        shares = [config.budget_tokens // (2 * max(1, len(costs) - 1))] * len(costs)
    elif stop == "solved" and steps % every:
        return [f"solved after {steps} steps: validations fall on every {every} steps"]
    for stage, cost in enumerate(costs):
        if stop == "solved" and (stage < len(costs) - 1 or steps <= every * (stage + 1)):
            continue  # two validations, in the last stage
        if stop == "budget" and tokens + cost <= config.budget_tokens:
            continue
        if _reachable(steps, tokens, cost, costs[:stage], every, shares):
            return []
    return [
        f"{steps} steps with {tokens} training tokens, stopped by {stop}: impossible with the "
        f"curriculum {list(config.curriculum)} and a budget of {config.budget_tokens}"
    ]


def _reachable(
    steps: int, tokens: int, cost: int, before: list[int], every: int, shares: list[int]
) -> bool:
    """Return whether a stage of `cost` tokens a step is reached with these totals.

    Stages end where a row of metrics falls, `every` steps: tokens are
    steps * cost + sum of every * rows * (cost of the stage - cost), with 1 row a stage or more.
    """
    if steps < every * len(before):
        return False
    low = high = steps * cost
    for other, share in zip(before, shares, strict=False):
        most = max(1, -(-share // (other * every)))
        ends = [every * rows * (other - cost) for rows in (1, most)]
        low, high = low + min(ends), high + max(ends)
    grain = math.gcd(*(every * (other - cost) for other in before))
    off = tokens - steps * cost
    return low <= tokens <= high and (off % grain == 0 if grain else off == 0)


def _model(data: dict[str, Any], config: Config) -> list[str]:
    """Return whether options, parameters and FLOPs are those of the operator, if it is built in."""
    if config.operator not in OPERATORS.names() or not _built_in(config):
        return []
    from mechbench.operators.base import from_stored, operator_options

    given = from_stored(config.operator, config.operator_options)
    resolved = operator_options(config.operator, given)
    found = [
        f"operator option {name} is {value!r}: expected {resolved[name]!r}"
        for name, value in config.operator_options.items()
        if canonical_json(value) != canonical_json(resolved[name])
    ]
    if found or data.get("parameters") is None:
        return found
    lengths = {task_of(config, length).input_seqlen for length in config.eval_seqlens}
    if config.max_seqlen not in (0, max(lengths)):
        return [f"max_seqlen is {config.max_seqlen}: expected 0 or {max(lengths)}"]
    # The longest was built for once; now the trained length, or what the configuration says.
    sizes = {max(lengths), task_of(config).input_seqlen, config.max_seqlen} - {0}
    models = [_built(_model_key(config), size, task_of(config).input_seqlen) for size in sizes]
    if data["parameters"] not in [parameters for parameters, _ in models]:
        found.append(f"parameters is {data['parameters']}: the model has {models[0][0]}")
    flops, known = data.get("flops_per_token"), [f for _, f in models if f]
    # Versions of torch may count differently, never by much.
    most = 2 * (_SQUARES if config.protocol <= _SQUARED else 1)
    if flops is not None and known and not min(known) / 2 <= flops <= max(known) * most:
        found.append(f"flops_per_token is {flops}: the model takes {known[0]}")
    return found


def _built_in(config: Config) -> bool:
    """Return whether the operator and all that it is made of are built in."""
    from mechbench.operators.base import components_used

    if OPERATORS.entry(config.operator).origin != "built-in":
        return False
    try:
        used = components_used(config.operator, config.operator_options)
    except MechbenchError:  # what it is made of is of a plugin that is not here, or nowhere
        return not config.plugins
    return all(entry.origin == "built-in" for entry in used)


def _model_key(config: Config) -> str:
    """Return the configuration without what a model's size does not depend on, as JSON."""
    same = dataclasses.replace(
        config, seed=0, lr=1.0, plugins={}, n_test=1, n_validation=1, budget_tokens=1
    )
    return canonical_json(same.to_dict())


@functools.lru_cache(maxsize=256)
def _built(key: str, max_seqlen: int, input_seqlen: int) -> tuple[int, float | None]:
    """Return the parameters and FLOPs a token of a model, built without memory."""
    import json

    import torch

    from mechbench.training.cost import flops_per_token
    from mechbench.training.model import build_model

    config = Config.from_dict(json.loads(key))
    with torch.device("meta"):
        model = build_model(config, max_seqlen)
    dim = task_of(config).input_dim
    parameters = sum(p.numel() for p in model.parameters())
    return parameters, flops_per_token(model, input_seqlen, dim)
