"""The checks before and after every training run: the contract, and the model's causality.

Before, at the longest length first, so that no budget is spent on what fails there, and with a few
sequences, which costs less than a few steps. After, again, with the trained weights: a branch that
starts at zero looks ahead only then. The trained model is probed as it was used: at every evaluated
length, at the batch sizes of training and scoring. Both, with and without gradients, in the run's
precision and in float32, on the task's own inputs. What half precision alone shows of a trained
model is looked at twice (`second_look`).

Cost: two forward passes a length and mode where nothing moves, five where rounding does, and one to
three backward passes at the trained length.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mechbench.data.streams import draw
from mechbench.errors import OperatorError
from mechbench.record.config import Config, canonical_json
from mechbench.record.seeds import derive
from mechbench.tasks.base import IGNORE, Batch, Task
from mechbench.training.evaluation import autocast
from mechbench.training.gate.contract import overheard
from mechbench.training.gate.lookahead import (
    Fault,
    by_gradient,
    by_value,
    cuts,
    model_function,
    repeating,
    tolerance,
    undisturbed,
)
from mechbench.training.gate.second_look import NOT_CAUSAL, second_look
from mechbench.training.lengths import for_tokens
from mechbench.training.memory import is_out_of_memory

_FEW = 4  # sequences before training: each has a cut of its own
# What makes no other model and no other inputs than those of another seed.
_LEFT_OUT = {
    "seed", "lr", "weight_decay", "warmup_steps", "schedule", "grad_clip", "batch_size",
    "curriculum", "budget_tokens", "n_train", "n_validation", "n_test", "validate_every",
    "allow_noncausal",
}  # fmt: skip
_passed: set[Hashable] = set()
_trained_passed: set[Hashable] = set()
_NUMBERS = 1 << 25  # logits and residual stream that a probe looks at at once

_AHEAD = "is not causal: "
_SAID = {kind: "" if kind == "unstable" else _AHEAD for kind in NOT_CAUSAL}


def before(
    model: nn.Module,
    config: Config,
    tasks: Sequence[Task],
    rows: int,
    device: str,
    warn: Callable[[str], None],
) -> str | None:
    """Run the model as training and scoring will; return why it is not causal, or None.

    `model` itself stays as it is: a copy is probed. What has passed once in this process with other
    weights is not probed again: the trained weights will be, by `after`.

    Args:
        model: about to be trained, on its device.
        config: of the run.
        tasks: the task at every evaluated length, the trained one among them.
        rows: sequences that training puts through the model at once.
        device: where to run.
        warn: told if no gradient passes the operator.

    Raises:
        OperatorError: the operator raised, broke its contract, gives NaN or infinity, repeats
            itself differently, or gets no gradient.
    """
    rows = min(rows, _FEW)
    key = _shape(model, config, rows, device)
    if key in _passed:
        return None
    warning = None
    probed = _copy(model)
    trained = next(task for task in tasks if task.seqlen == config.seqlen)
    longest = max(tasks, key=lambda task: task.input_seqlen)
    with undisturbed(torch.device(device)):
        fault = None
        if longest is not trained:
            batch = draw(longest, 1, config.seed, "validation", 0, "cpu")
            reader = for_tokens(probed, config, longest.input_seqlen, device)
            fault = _probe(reader, batch, config, device, 1, training=False, trained=False)
        if fault is None or fault.kind == "not finite":  # beyond the trained length no fault
            batch = draw(trained, rows, config.seed, "validation", 0, "cpu")
            warning = _first_step(probed, batch.inputs[:1].to(device), config, device)
            if warning is not None:
                warn(warning)
            fault = _probe(probed, batch, config, device, rows, training=True, trained=False)
    if fault is None and warning is None:
        _passed.add(key)
    if fault is None or fault.kind in NOT_CAUSAL:
        probed.zero_grad(set_to_none=True)
        return None if fault is None else _SAID[fault.kind] + fault.text
    raise OperatorError(f"operator {config.operator!r} {fault.text}")


def after(
    model: nn.Module,
    config: Config,
    task: Task,
    batch: Batch,
    rows: int,
    scored_rows: int,
    device: str,
) -> str | None:
    """Probe the trained model at one length as it was scored; return why it is not causal.

    What is not finite cannot be judged, and is told by the score. Where the same model, trained
    from other weights, has passed in this process, one look at its values in the run's precision
    is enough: what training opens, it opens in every run.

    Args:
        model: trained, on its device; its gradients are dropped.
        config: of the run.
        task: at the length.
        batch: evaluation examples of the length.
        rows: sequences that training puts through the model at once.
        scored_rows: the same of scoring.
        device: where to run.

    Raises:
        OperatorError: the operator raised or repeats itself differently.
    """
    training = task.seqlen == config.seqlen
    rows = min(rows, scored_rows)
    key = _shape(model, config, rows, device), task.input_seqlen, scored_rows
    with undisturbed(torch.device(device)):
        if key in _trained_passed:
            fault = _probe(model, batch, config, device, rows, training=False, brief=True)
        else:
            fault = _probe(model, batch, config, device, rows, training=training)
            if fault is None and _differs(model, batch, config, device, rows, scored_rows):
                fault = _probe(model, batch, config, device, scored_rows, training=False)
    model.zero_grad(set_to_none=True)
    if fault is None:
        _trained_passed.add(key)
    if fault is None or fault.kind == "not finite":
        return None
    if fault.kind == "restless":
        raise OperatorError(f"operator {config.operator!r} {fault.text}")
    return _SAID[fault.kind] + fault.text


@torch.no_grad()
def _differs(
    model: nn.Module, batch: Batch, config: Config, device: str, rows: int, scored_rows: int
) -> bool:
    """Return whether a few sequences get other logits in a batch as large as scoring uses.

    One more pass tells whether the large batch needs a probe of its own, at five times the cost.
    """
    scored_rows = min(scored_rows, len(batch.inputs))
    if scored_rows <= rows:
        return False
    model.eval()
    try:
        with autocast(device, config.dtype):
            few = model(batch.inputs[:rows].to(device))
            many = model(batch.inputs[:scored_rows].to(device))[:rows]
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False  # then it was not scored in such batches
    return not float((many - few).abs().max() / few.abs().max()) <= tolerance(few.dtype)


def _shape(model: nn.Module, config: Config, rows: int, device: str) -> Hashable:
    """Return all that decides whether an untrained model passes, but for its weights."""
    fields = {k: v for k, v in config.to_dict().items() if k not in _LEFT_OUT}
    classes = tuple(type(module) for module in model.modules())
    return classes, canonical_json(fields), rows, device


def settle(found: str | None, result: dict[str, Any], config: Config) -> None:
    """Note in `result` whether the model is causal, once it was probed.

    Raises:
        OperatorError: it is not, and the configuration does not allow that; scores are dropped.
    """
    result["causal"] = found is None and result.get("causal") is not False
    if found is None or config.allow_noncausal:
        return
    result["evaluations"] = []
    raise OperatorError(
        f"operator {config.operator!r} {found}; --allow-noncausal trains it "
        "anyway and marks the result"
    )


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception:
        # What cannot be copied is probed itself: its gradients are dropped afterwards.
        return model


def _first_step(model: nn.Module, tokens: Tensor, config: Config, device: str) -> str | None:
    """Run forward and backward on one sequence; return what to warn of if no gradient passes."""
    operators = [block.operator for block in model.blocks]  # type: ignore[union-attr]
    reached: list[Tensor] = []

    def hear(u: Tensor) -> None:
        u.retain_grad()
        reached.append(u)

    with overheard(operators, hear), autocast(device, config.dtype):
        logits = model.train()(tokens)
    weight = torch.randn_like(logits, dtype=torch.float32)
    (logits.float() * weight).sum().backward()
    own = [p for operator in operators for p in operator.parameters() if p.requires_grad]
    if own and all(p.grad is None for p in own):
        raise OperatorError(
            f"operator {config.operator!r} cannot learn: no gradient reaches any of its "
            f"{len(own)} parameter tensors (a detached output, or torch.no_grad?)"
        )
    if any(u.grad is None for u in reached):
        return (
            f"no gradient flows back through operator {config.operator!r} to its input (a detached "
            "input, or one that is not used?)"
        )
    return None


def _probe(
    model: nn.Module,
    batch: Batch,
    config: Config,
    device: str,
    rows: int,
    *,
    training: bool,
    trained: bool = True,
    brief: bool = False,
) -> Fault | None:
    """Judge with as many sequences as fit."""
    L = batch.inputs.shape[1]
    if L < 2:
        return None
    width = max(config.vocab_size, 4 * config.d_model)
    rows = min(rows, len(batch.inputs), max(4, _NUMBERS // (L * width)))
    while True:
        try:
            return _judge(model, batch, config, device, rows, training, trained, brief)
        except Exception as error:
            if not is_out_of_memory(error) or rows == 1:
                raise
        rows //= 2
        if device.startswith("cuda"):
            torch.cuda.empty_cache()


def _judge(
    model: nn.Module,
    batch: Batch,
    config: Config,
    device: str,
    rows: int,
    training: bool,
    trained: bool,
    brief: bool,
) -> Fault | None:
    inputs = batch.inputs[:rows].to(device)
    paying = (batch.targets != IGNORE).any(0).nonzero().flatten()
    seed = derive(config.seed, "gate", inputs.shape[1])
    at = cuts(inputs.shape[1], rows, seed, paying)
    run = model_function(model.eval(), inputs)
    with autocast(device, config.dtype):
        fault = by_value(run, at[:1] if brief else at, seed)
    half = config.dtype != "float32"

    def again(fault: Fault | None, judge: Callable[[], Fault | None]) -> Fault | None:
        if not half or (fault is not None and not trained):
            return fault
        return second_look(fault, judge, model, inputs, at, seed, config.dtype)

    if fault is not None or not brief:
        fault = again(fault, lambda: by_value(run, at, seed))
    if fault is not None or not training:
        return fault
    model.train()
    run = repeating(run, seed)
    with autocast(device, config.dtype):
        fault = by_value(run, at[:1], seed, grad=True)
    if fault is not None:
        fault = again(fault, lambda: by_value(run, at[:1], seed, grad=True))
    if fault is None or fault.kind == "restless":  # its own state moves on in training
        with autocast(device, config.dtype):
            fault = by_gradient(run, at[-1], seed)
        if fault is not None:
            fault = again(fault, lambda: by_gradient(run, at[-1], seed))
    return fault
