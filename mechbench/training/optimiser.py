"""Optimizer groups and the learning-rate schedule."""

from __future__ import annotations

import math

import torch
from torch import nn


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


def make_optimizer(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW with decay on matrices only, and what parameters ask for in `.optim`.

    Each group keeps its peak rate in "peak_lr"; `set_lr` scales it.
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
    device = next(model.parameters()).device
    on_cuda = device.type == "cuda"
    return torch.optim.AdamW(
        [
            {
                "params": p,
                # A tensor on CUDA, so that a captured step reads the rate of the day.
                "lr": torch.tensor(k[0], device=device) if on_cuda else k[0],
                "peak_lr": k[0],
                "weight_decay": k[1],
            }
            for k, p in groups.items()
        ],
        betas=(0.9, 0.98),
        fused=on_cuda,
        capturable=on_cuda,
    )


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group to `factor` times its peak rate."""
    for group in optimizer.param_groups:
        lr = group["peak_lr"] * factor
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
