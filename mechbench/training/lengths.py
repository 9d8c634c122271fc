"""The length that a model is built for, and the same model built for longer inputs.

Scoring beyond the trained length must not change what is trained. So a model is built for the
trained length; one that reads longer inputs is built anew and takes over what was trained. Where an
operator is another one when built for longer inputs, it says so (`depends_on_max_seqlen`): it is
then trained as built for the longest, and `Config.max_seqlen` records that.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from mechbench.errors import OperatorError
from mechbench.plan.resolve import task_of
from mechbench.record.config import Config
from mechbench.training.evaluation import autocast
from mechbench.training.model import build_model

# Largest difference of outputs, relative to the largest output, that rounding explains.
_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
_NOISE = 0.02  # on weights before they are compared: what starts at zero may hide a difference


def tokens_built_for(config: Config) -> int:
    """Return the longest input, in tokens, of the model that is trained."""
    return config.max_seqlen or task_of(config).input_seqlen


def tokens_read(config: Config) -> int:
    """Return the longest input, in tokens, that is scored."""
    return max(task_of(config, length).input_seqlen for length in config.eval_seqlens)


def for_tokens(model: nn.Module, config: Config, tokens: int, device: str) -> nn.Module:
    """Return `model`, or a copy of it built for `tokens` if those are more than it was built for.

    Raises:
        OperatorError: the state does not fit: the operator depends on max_seqlen.
    """
    built = tokens_built_for(config)
    if tokens <= built:
        return model
    with torch.random.fork_rng([device] if device.startswith("cuda") else []):
        longer = build_model(config, tokens)
    try:
        longer.load_state_dict(model.state_dict())
    except RuntimeError as error:
        raise _undeclared(config, built, tokens, "its weights do not fit") from error
    _copy_buffers(model, longer)
    return longer.to(device).train(model.training)


def check_longer(model: nn.Module, config: Config, inputs: Tensor, device: str) -> None:
    """Check, before training, that the model for the longest evaluated input is the same model.

    Args:
        model: freshly built, on `device`; left as it is.
        config: its configuration.
        inputs: a few examples of the trained length.
        device: where to run.

    Raises:
        OperatorError: its weights do not fit, or its outputs differ.
    """
    built, longest = tokens_built_for(config), tokens_read(config)
    if longest <= built:
        return
    moved = copy.deepcopy(model).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in moved.parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.add_(noise.to(device, p.dtype), alpha=_NOISE)
    expected = _outputs(moved, inputs, device, config.dtype)
    got = _outputs(for_tokens(moved, config, longest, device), inputs, device, config.dtype)
    scale = float(expected.abs().max())
    if float((got - expected).abs().max()) > _TOLERANCE[config.dtype] * scale:
        raise _undeclared(config, built, longest, "its outputs for the same input differ")


def _outputs(model: nn.Module, inputs: Tensor, device: str, dtype: str) -> Tensor:
    # The same generators each time: what is drawn is no difference.
    with torch.random.fork_rng([device] if device.startswith("cuda") else []), torch.no_grad():
        torch.manual_seed(0)
        with autocast(device, dtype):
            return model(inputs.to(device)).float()  # type: ignore[no-any-return]


def _copy_buffers(model: nn.Module, longer: nn.Module) -> None:
    """Copy the buffers that a state dict leaves out, if they have the same shape."""
    saved = model.state_dict().keys()
    own = dict(longer.named_buffers())
    for name, buffer in model.named_buffers():
        if name not in saved and name in own and own[name].shape == buffer.shape:
            own[name].copy_(buffer)


def _undeclared(config: Config, built: int, tokens: int, what: str) -> OperatorError:
    return OperatorError(
        f"operator {config.operator!r} depends on max_seqlen ({what} when built for {tokens} "
        f"tokens in place of {built}): give it the attribute depends_on_max_seqlen = True, or "
        "score at no longer length"
    )
