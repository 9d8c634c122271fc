"""Operators with one fault each, for the tests of the checks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mechbench.checks.subject import Subject
from mechbench.ops import fft_conv
from mechbench.registry import register_operator

D, L = 8, 32


class Base(nn.Module):
    """A causal mean with a scale: sound, and its map is fixed."""

    def __init__(self, d_model: int, max_seqlen: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(d_model))

    def forward(self, u: Tensor) -> Tensor:
        steps = torch.arange(1, u.shape[1] + 1, device=u.device)[:, None]
        return self.scale * u.cumsum(1) / steps


class Noncausal(Base):
    def forward(self, u: Tensor) -> Tensor:
        return super().forward(u) + 0.1 * u.mean(1, keepdim=True)


class BatchDependent(Base):
    def forward(self, u: Tensor) -> Tensor:
        return super().forward(u) * (u.square().cumsum(1).mean(0, keepdim=True) + 1)


class NanInHalf(Base):
    def forward(self, u: Tensor) -> Tensor:
        y = (u @ u.new_ones(u.shape[-1], 1)) * 0 + super().forward(u)
        if torch.is_autocast_enabled("cpu"):
            return y / 0 * 0
        return y


class NanGradientInHalf(Base):
    def forward(self, u: Tensor) -> Tensor:
        y = super().forward(u)
        return y + (0 * y).abs().sqrt() if torch.is_autocast_enabled("cpu") else y


class DeadParameter(Base):
    def __init__(self, d_model: int, max_seqlen: int) -> None:
        super().__init__(d_model, max_seqlen)
        self.unused = nn.Parameter(torch.ones(3))
        self.cancelled = nn.Parameter(torch.ones(3))

    def forward(self, u: Tensor) -> Tensor:
        return super().forward(u) + 0 * self.cancelled.sum()


class WrongShape(Base):
    def forward(self, u: Tensor) -> Tensor:
        return super().forward(u)[:, :, :-1]


class WrongDtype(Base):
    def forward(self, u: Tensor) -> Tensor:
        return super().forward(u).double()


class Restless(Base):
    def forward(self, u: Tensor) -> Tensor:
        return super().forward(u) * (1 + torch.rand(()))


class Forgetful(Base):
    """Part of the function is not in the state dict."""

    def __init__(self, d_model: int, max_seqlen: int) -> None:
        super().__init__(d_model, max_seqlen)
        self.hidden = torch.randn(d_model)

    def forward(self, u: Tensor) -> Tensor:
        return super().forward(u) * self.hidden


class Raising(Base):
    def forward(self, u: Tensor) -> Tensor:
        if u.shape[1] > 7:
            raise ValueError("too\nlong")
        return super().forward(u)


class FixedConv(nn.Module):
    """Explicit taps: parameters grow with the length, no data control."""

    def __init__(self, d_model: int, max_seqlen: int) -> None:
        super().__init__()
        self.taps = nn.Parameter(torch.randn(d_model, max_seqlen) / max_seqlen**0.5)

    def forward(self, u: Tensor) -> Tensor:
        return fft_conv(u.transpose(1, 2), self.taps).transpose(1, 2)


def subject(
    component: str | Callable[..., nn.Module], *, seqlen: int = L, **options: object
) -> Subject:
    """Return the examination of a built-in, or of a class registered as "mine"."""
    name = component if isinstance(component, str) else "mine"
    if not isinstance(component, str):
        register_operator("mine")(component)
    return Subject(name, dict(options), D, seqlen, "cpu")
