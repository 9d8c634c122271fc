"""Optimizer groups and the learning-rate schedule."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn

from mechbench.ops.adamw import FlatAdamW, flat_adamw_takes

_BETAS = (0.9, 0.98)


class _AdamW(torch.optim.AdamW):
    """PyTorch's, without what is wrapped around it for its compiler: that loads it, for seconds."""

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)


def lr_factor(step: int, spent: float, warmup_steps: int) -> float:
    """Return the factor on the peak learning rate.

    Args:
        step: steps done so far.
        spent: fraction of the token budget used so far, 0 to 1.
        warmup_steps: steps of linear warm-up; the cosine runs over the budget, because steps of
            different lengths cost different numbers of tokens.
    """
    warmup = min(1.0, (step + 1) / max(1, warmup_steps))
    return warmup * 0.5 * (1.0 + math.cos(math.pi * min(1.0, spent)))


def parameter_groups(model: nn.Module, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Return the groups of parameters: decay on matrices only, and what they ask for in `.optim`.

    Each group has its peak rate in "peak_lr", too; `set_lr` scales it.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        matrix = parameter.ndim >= 2 and id(parameter) not in embeddings
        own = getattr(parameter, "optim", {})
        key = (own.get("lr", lr), own.get("weight_decay", weight_decay if matrix else 0.0))
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": p, "lr": rate, "peak_lr": rate, "weight_decay": decay}
        for (rate, decay), p in groups.items()
    ]


def make_optimizer(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW on `parameter_groups`."""
    groups = parameter_groups(model, lr, weight_decay)
    parameters = [p for group in groups for p in group["params"]]
    if flat_adamw_takes(parameters):
        return FlatAdamW(groups, _BETAS)
    on_cuda = next(model.parameters()).is_cuda
    if on_cuda:  # tensors, so that a captured step reads the rate of the day
        for group in groups:
            group["lr"] = torch.tensor(group["lr"], device=group["params"][0].device)
    return _AdamW(groups, betas=_BETAS, fused=on_cuda, capturable=on_cuda)


def clip(model: nn.Module, optimizer: torch.optim.Optimizer, max_norm: float) -> Tensor:
    """Clip the gradients of the next step to `max_norm`; return their norm before that, ()."""
    if isinstance(optimizer, FlatAdamW):
        return optimizer.clip(max_norm)
    # In the model's order, not that of the groups: the sum is rounded as it always was.
    return torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group to `factor` times its peak rate."""
    if isinstance(optimizer, FlatAdamW):
        optimizer.set_rates(factor)
        return
    for group in optimizer.param_groups:
        lr = group["peak_lr"] * factor
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
