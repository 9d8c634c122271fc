"""Operators with one fault each, for the tests of the checks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mechbench.catalogue.registry import register_operator
from mechbench.checks.subject import Subject
from mechbench.ops import fft_conv
from mechbench.training.model import Backbone

D, L, V = 8, 32, 8


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


def shifted(u: Tensor) -> Tensor:
    """Return the next input at every position."""
    return torch.cat([u[:, 1:], u[:, -1:]], 1)


def single_precision_conv(u: Tensor, taps: Tensor) -> Tensor:
    """Convolve causally by an FFT in float32, whatever comes: there is none in bfloat16."""
    L = u.shape[1]
    spectrum = torch.fft.rfft(u.float(), n=2 * L, dim=1)
    spectrum = spectrum * torch.fft.rfft(taps.float().t(), n=2 * L, dim=0)
    return torch.fft.irfft(spectrum, n=2 * L, dim=1)[:, :L].to(u.dtype)


class SinglePrecision(nn.Module):
    """Sound: casts to float32 before its FFT."""

    depends_on_max_seqlen = True

    def __init__(self, d_model: int, max_seqlen: int) -> None:
        super().__init__()
        self.taps = nn.Parameter(torch.randn(d_model, max_seqlen) / max_seqlen**0.5)

    def forward(self, u: Tensor) -> Tensor:
        return single_precision_conv(u, self.taps[:, : u.shape[1]])


class MovingAverage(nn.Module):
    """Sound: the damped EMA of Mega by FFT in float32 (Ma et al. 2022, equations 4 to 6)."""

    def __init__(self, d_model: int, max_seqlen: int, n: int = 4) -> None:
        super().__init__()
        self.delta, self.alpha = (nn.Parameter(torch.randn(d_model, n) * 0.2) for _ in range(2))
        self.beta, self.gamma = (nn.Parameter(torch.randn(d_model, n)) for _ in range(2))
        self.omega = nn.Parameter(torch.randn(d_model))

    def forward(self, u: Tensor) -> Tensor:
        p = self.alpha.float().sigmoid()
        q = 1 - p * self.delta.float().sigmoid()
        powers = q[..., None] ** torch.arange(u.shape[1], device=u.device)
        weight = p * self.beta.float() * self.gamma.float() / 2  # (D, n)
        taps = torch.einsum("dn,dnl->dl", weight, powers)
        return nn.functional.silu(single_precision_conv(u, taps) + self.omega * u)


class HalfInside(SinglePrecision):
    """Sound: rounds to bfloat16 what its FFT gives, so that rounding falls in rare flips."""

    def forward(self, u: Tensor) -> Tensor:
        return super().forward(u.bfloat16()).to(u.dtype)


class Faint(SinglePrecision):
    """Looks one token ahead with a weight of 1e-4, beside an FFT's rounding."""

    def forward(self, u: Tensor) -> Tensor:
        return super().forward(u) + 1e-4 * shifted(u)


class Opening(Base):
    """Looks ahead through a branch that is closed as initialised."""

    def __init__(self, d_model: int, max_seqlen: int) -> None:
        super().__init__(d_model, max_seqlen)
        self.gate = nn.Parameter(torch.zeros(d_model))

    def forward(self, u: Tensor) -> Tensor:
        return super().forward(u) + self.gate * shifted(u)


class FarAhead(Base):
    """Looks ahead only beyond 20 tokens."""

    def forward(self, u: Tensor) -> Tensor:
        return super().forward(u) + (shifted(u) if u.shape[1] > 20 else 0)


class InTraining(Base):
    def forward(self, u: Tensor) -> Tensor:
        return super().forward(u) + (shifted(u) if self.training else 0)


class InLargeBatches(Base):
    def forward(self, u: Tensor) -> Tensor:
        return super().forward(u) + (shifted(u) if len(u) > 2 else 0)


class AtOddBlocks(Base):
    """Positions of every second block of four see the whole block that follows."""

    def forward(self, u: Tensor) -> Tensor:
        pad = -u.shape[1] % 8
        blocks = nn.functional.pad(u, (0, 0, 0, pad)).unflatten(1, (-1, 2, 4))  # (B, n, 2, 4, D)
        seen = torch.stack([blocks[:, :, 1].mean(2), torch.zeros_like(blocks[:, :, 0, 0])], 2)
        ahead = seen[:, :, :, None].expand_as(blocks).flatten(1, 3)
        return super().forward(u) + ahead[:, : u.shape[1]]


class AfterCalls(Base):
    """Looks ahead once it was called often enough: the trained one does."""

    calls = 0

    def forward(self, u: Tensor) -> Tensor:
        type(self).calls += 1
        return super().forward(u) + (shifted(u) if self.calls > 60 else 0)


class BatchStatistics(Base):
    def __init__(self, d_model: int, max_seqlen: int) -> None:
        super().__init__(d_model, max_seqlen)
        self.norm = nn.BatchNorm1d(d_model)

    def forward(self, u: Tensor) -> Tensor:
        return super().forward(self.norm(u.transpose(1, 2)).transpose(1, 2))


class WholeMaximum(Base):
    def forward(self, u: Tensor) -> Tensor:
        return super().forward(u) + 1e-2 * u.amax(1, keepdim=True)


class InHalf(Base):
    def forward(self, u: Tensor) -> Tensor:
        return super().forward(u) + (shifted(u) if torch.is_autocast_enabled("cpu") else 0)


class WithoutGradients(Base):
    """Looks ahead where it is scored, and with weights that no gradient has seen."""

    def forward(self, u: Tensor) -> Tensor:
        return super().forward(u) + (0 if torch.is_grad_enabled() else shifted(u))


class Hashed(Base):
    """What it sees of the next token is the same for a small change and a large one."""

    def forward(self, u: Tensor) -> Tensor:
        return super().forward(u) + 0.1 * torch.sin(1e5 * shifted(u))


class ZeroOutput(Base):
    """Sound: its output starts at zero, and so do the gradients of what is before it."""

    def __init__(self, d_model: int, max_seqlen: int) -> None:
        super().__init__(d_model, max_seqlen)
        self.inner, self.out = nn.Linear(d_model, d_model), nn.Linear(d_model, d_model)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, u: Tensor) -> Tensor:
        return self.out(self.inner(super().forward(u)))


class DropoutAlways(Base):
    def forward(self, u: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(u), 0.5, training=True)


class Detached(Base):
    def forward(self, u: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(u)


class NoParameters(nn.Module):
    """Sound: nothing to learn in it."""

    def __init__(self, d_model: int, max_seqlen: int) -> None:
        super().__init__()

    def forward(self, u: Tensor) -> Tensor:
        return u.cumsum(1) / u.shape[1]


class Lazy(Base):
    def __init__(self, d_model: int, max_seqlen: int) -> None:
        super().__init__(d_model, max_seqlen)
        self.mix = nn.LazyLinear(d_model)


class InPlace(Base):
    """Changes what its own backward pass needs."""

    def forward(self, u: Tensor) -> Tensor:
        y = super().forward(u).exp()
        y.mul_(2)
        return y


class Leaving(Base):
    def forward(self, u: Tensor) -> Tensor:
        raise SystemExit(3)


class WrongLater(Base):
    """Gives another shape after some steps."""

    steps = 0

    def forward(self, u: Tensor) -> Tensor:
        y = super().forward(u)
        if self.training and u.device.type != "meta":
            type(self).steps += 1
        return y[:, 1:] if self.steps > 30 else y


LOOKING_AHEAD = (
    Noncausal, Faint, Opening, FarAhead, InTraining, InLargeBatches, AtOddBlocks, AfterCalls,
    BatchStatistics, WholeMaximum, WithoutGradients, Hashed,
)  # fmt: skip
SOUND = (Base, FixedConv, SinglePrecision, MovingAverage, HalfInside, ZeroOutput, NoParameters)


def subject(
    component: str | Callable[..., nn.Module], *, seqlen: int = L, **options: object
) -> Subject:
    """Return the examination of a built-in, or of a class registered as "mine"."""
    name = component if isinstance(component, str) else "mine"
    if not isinstance(component, str):
        register_operator("mine")(component)
    return Subject(name, dict(options), D, seqlen, "cpu", steps=20)


def model(
    component: str | Callable[..., nn.Module], *, max_seqlen: int = L, **options: object
) -> Backbone:
    """Return a small model around a built-in, or around a class registered as "mine"."""
    name = component if isinstance(component, str) else "mine"
    if not isinstance(component, str):
        register_operator("mine")(component)
    torch.manual_seed(0)
    return Backbone(name, options, vocab_size=V, d_model=D, n_layers=2, max_seqlen=max_seqlen)
