"""What stands before every training run: the operator's contract, causality of the actual model."""

from __future__ import annotations

import contextlib
import copy
import traceback
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from mechbench.errors import MechbenchError, OperatorError
from mechbench.evaluate import autocast
from mechbench.memory import is_out_of_memory
from mechbench.operators.base import make_operator
from mechbench.registry import OPERATORS

# Largest movement of an output before a perturbed suffix, relative to the largest output.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
_EXACT_SEQLEN = 512  # the float64 check looks at no more tokens than this


def blame(operator: str, error: Exception) -> OperatorError | None:
    """Return the error that names `operator`, if its own file stands in the traceback."""
    if isinstance(error, MechbenchError) or is_out_of_memory(error):
        return None
    module = OPERATORS.entry(operator).target.partition(":")[0]
    import sys

    file = getattr(sys.modules.get(module), "__file__", None)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    if not frames:
        return None
    text = " ".join(str(error).split())
    return OperatorError(
        f"operator {operator!r} raised {type(error).__name__} at line {frames[-1].lineno} "
        f"of its file: {text}"
    )


@contextlib.contextmanager
def naming(operator: str) -> Iterator[None]:
    """Turn what an operator raises into an error with its name; other errors pass as they are."""
    try:
        yield
    except Exception as error:
        named = blame(operator, error)
        if named is None:
            raise
        raise named from error


def check_contract(
    operator: str, options: dict[str, Any], d_model: int, max_seqlen: int, device: str
) -> None:
    """Run the operator on a small random input.

    Raises:
        OperatorError: it raises, returns a wrong shape or type, or gives NaN or infinity.
    """
    module = make_operator(operator, d_model=d_model, max_seqlen=max_seqlen, **options)
    module = module.to(device).eval()
    L = min(max_seqlen, 32)
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(2, L, d_model, generator=generator).to(device)
    try:
        with torch.no_grad():
            y = module(u)
    except Exception as error:
        if isinstance(error, MechbenchError) or is_out_of_memory(error):
            raise
        text = " ".join(str(error).split())
        raise OperatorError(
            f"operator {operator!r} raised {type(error).__name__} on an input of shape "
            f"{tuple(u.shape)}: {text}"
        ) from error
    if not isinstance(y, Tensor):
        raise OperatorError(
            f"operator {operator!r} returned a {type(y).__name__}: expected a tensor of shape "
            f"{tuple(u.shape)}"
        )
    if y.shape != u.shape:
        raise OperatorError(
            f"operator {operator!r} returned shape {tuple(y.shape)}: expected {tuple(u.shape)}"
        )
    if not torch.isfinite(y).all():
        raise OperatorError(f"operator {operator!r} gives NaN or infinity on random input")


def leak(model: nn.Module, tokens: Tensor, vocab_size: int) -> float:
    """Return how far outputs move when only later tokens change, relative to the largest output.

    Args:
        model: tokens (B, L) to logits (B, L, V), in evaluation mode.
        tokens: (B, L), or (B, L, d) numbers; every one from a cut on is replaced, for two cuts: the
            middle and the last token.
        vocab_size: V.
    """
    L = tokens.shape[1]
    with torch.no_grad():
        before = model(tokens)
        scale = before.abs().max().clamp_min(1e-30)
        worst = torch.zeros((), device=tokens.device, dtype=before.dtype)
        for cut in {max(1, L // 2), L - 1} - {0}:
            changed = tokens.clone()
            if tokens.is_floating_point():
                changed[:, cut:] += 1
            else:
                # Never a whole turn, which would change nothing: 1 at V = 2, about half elsewhere.
                changed[:, cut:] = (changed[:, cut:] + (vocab_size + 1) // 2) % vocab_size
            moved = (model(changed)[:, :cut] - before[:, :cut]).abs().max()
            worst = torch.maximum(worst, moved / scale)
    return float(worst)


def check_causality(
    model: nn.Module, tokens: Tensor, vocab_size: int, operator: str, device: str
) -> bool:
    """Return whether `model` is causal: at full length in float32, and to rounding in float64.

    Args:
        model: the model about to be trained.
        tokens: (B, L) inputs of the task at the trained length, or (B, L, d) numbers.
        vocab_size: V.
        operator: name, for messages.
        device: where to run.

    Raises:
        OperatorError: the model gives NaN or infinity at this length.
    """
    was_training = model.training
    model.eval()
    try:
        try:
            full = leak(model, tokens.to(device), vocab_size)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            with autocast(device, "bfloat16"):  # kernels that know half types only
                full = leak(model, tokens.to(device), vocab_size) * 0.03
        if full != full or full == float("inf"):
            raise OperatorError(
                f"operator {operator!r} gives NaN or infinity at {tokens.shape[1]} tokens"
            )
        if full > _TOLERANCE[torch.float32]:
            return False
        start = tokens[:, :_EXACT_SEQLEN].to(device)
        try:
            exact = leak(
                copy.deepcopy(model).double(),
                start.double() if start.is_floating_point() else start,
                vocab_size,
            )
        except Exception as error:
            if is_out_of_memory(error):
                raise
            return True  # no float64 kernels: the full-length check stands alone
        return exact <= _TOLERANCE[torch.float64]
    finally:
        model.train(was_training)
