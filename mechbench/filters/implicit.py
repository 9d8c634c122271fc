"""Implicit filters: taps as a function of time.

    h_t = Window(t) FFN(PositionalEncoding(t))

Source: Poli et al. 2023, section 3.3, and the released code. PositionalEncoding is t scaled to
[0, 1] with cosines and sines of (emb_dim - 1) / 2 bands; the FFN has sine activations of a learned
frequency; Window is exp(-alpha_d t) + shift.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mechbench.catalogue.registry import register_filter
from mechbench.catalogue.settings import check_options
from mechbench.errors import ConfigError
from mechbench.ops.sine import sine, sine_layer
from mechbench.ops.window import windowed_product

FilterTime = Literal["absolute", "relative"]
FilterNorm = Literal["none", "length", "l1"]
# Norms are relative to these, so that they change little at the synthetic tasks' usual lengths.
_NORM_SEQLEN, _NORM_L1 = 1024, 30.0


class Sine(nn.Module):
    """sin(freq x) with one learned frequency per feature."""

    def __init__(self, width: int, freq: float) -> None:
        super().__init__()
        self.freq = nn.Parameter(torch.full((width,), float(freq)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to the same shape."""
        return sine(x, self.freq)


def check_network(emb_dim: int, **options: float) -> None:
    """Check the options of the encoding, the FFN and the window.

    Raises:
        ConfigError: emb_dim even, or an option out of range.
    """
    check_options(**options)
    if emb_dim < 3 or emb_dim % 2 == 0:
        raise ConfigError(f"emb_dim is {emb_dim}: expected an odd number of at least 3")
    check_options(emb_dim=emb_dim)


def start_linear(layers: Iterable[nn.Module], std: float) -> None:
    """Give the linear maps among `layers` normally distributed weights, and biases of zero."""
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def through(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Return what the layers make of x (..., K): linear maps, each followed by a `Sine`."""
    for layer, activation in zip(layers[::2], layers[1::2], strict=True):
        assert isinstance(layer, nn.Linear)
        assert isinstance(activation, Sine)
        x = sine_layer(x, layer.weight, layer.bias, activation.freq)
    return x


def encoding_bands(emb_dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """Return the frequencies of the positional encoding: ((emb_dim - 1) / 2,)."""
    n = (emb_dim - 1) // 2
    return torch.linspace(1e-4, max(n - 1, 1e-4), n, dtype=dtype)


def window_rates(
    slow_decay: float, fast_decay: float, n: int, dtype: torch.dtype | None = None
) -> Tensor:
    """Return n decay rates from the slowest to the fastest, each to 1e-2 at its fraction."""
    slow, fast = (math.log(100) / decay for decay in (slow_decay, fast_decay))
    return torch.linspace(slow, fast, n, dtype=dtype)


@register_filter("hyena", source="Poli et al. 2023 (arXiv:2302.10866), section 3.3")
class ImplicitFilter(nn.Module):
    """A feed-forward network of time under a decaying window.

    Args:
        n_filters: N, long convolutions in the operator.
        d_model: D, channels.
        max_seqlen: longest filter, in taps.
        emb_dim: features of the positional encoding, odd: 5 for synthetic tasks, 33 for language.
        filter_width: width of the FFN.
        filter_layers: inner layers of the FFN.
        sine_freq: initial frequency of the sines.
        fast_decay: the fastest channel decays to 1e-2 at this fraction of the length.
        slow_decay: the same for the slowest channel.
        window_shift: constant added to the window, so that it never decays below it. The released
            default is 0, with which taps far back begin too small to be learnt.
        filter_init_std: standard deviation of the FFN's initial weights. The released code starts
            its FFN at 0.02, so that filters start smooth in spite of the sine frequency; PyTorch's
            own default starts them as noise, and recall then needs several times the steps.
        filter_time: "absolute": t is divided by max_seqlen, as released; "relative": by the current
            length, so that the learned filter stretches with the input.
        filter_norm: "none"; "length": taps scaled by 1024 / L; "l1": each filter scaled to an L1
            norm of 30. Both keep sums from growing with the length.

    Raises:
        ConfigError: emb_dim even, or an option out of range.
    """

    windowed = True  # False in the family `ckconv`

    @staticmethod
    def depends_on_max_seqlen(options: Mapping[str, object]) -> bool:
        """Return whether time is a fraction of max_seqlen."""
        return options["filter_time"] == "absolute"

    def __init__(
        self,
        n_filters: int,
        d_model: int,
        max_seqlen: int,
        *,
        emb_dim: int = 5,
        filter_width: int = 64,
        filter_layers: int = 2,
        sine_freq: float = 10.0,
        fast_decay: float = 0.3,
        slow_decay: float = 1.5,
        window_shift: float = 1.0,
        filter_init_std: float = 0.02,
        filter_time: FilterTime = "relative",
        filter_norm: FilterNorm = "length",
    ) -> None:
        super().__init__()
        check_network(
            emb_dim,
            filter_width=filter_width,
            filter_layers=filter_layers,
            sine_freq=sine_freq,
            fast_decay=fast_decay,
            slow_decay=slow_decay,
            window_shift=window_shift,
            filter_init_std=filter_init_std,
        )
        self.n_filters, self.d_model, self.max_seqlen = n_filters, d_model, max_seqlen
        self.shift = window_shift
        self.time, self.norm = filter_time, filter_norm
        width = filter_width
        layers: list[nn.Module] = [nn.Linear(emb_dim, width), Sine(width, sine_freq)]
        for _ in range(filter_layers):
            layers += [nn.Linear(width, width), Sine(width, sine_freq)]
        layers.append(nn.Linear(width, n_filters * d_model, bias=False))
        self.ffn = nn.Sequential(*layers)
        start_linear(layers, filter_init_std)
        self.bands: Tensor
        self.alpha: Tensor
        self.register_buffer("bands", encoding_bands(emb_dim), persistent=False)
        alpha = window_rates(slow_decay, fast_decay, d_model)
        self.register_buffer("alpha", alpha, persistent=False)

    def forward(self, seqlen: int) -> Tensor:
        """Return the taps: (N, D, seqlen), float32 or wider, also under autocast."""
        weight = next(self.ffn.parameters())
        with torch.autocast("cuda" if weight.is_cuda else "cpu", enabled=False):
            span = max(1, (seqlen if self.time == "relative" else self.max_seqlen) - 1)
            t = torch.arange(seqlen, device=weight.device, dtype=weight.dtype) / span  # (L,)
            phase = 2 * math.pi * t[:, None] * self.bands  # (L, bands)
            features = torch.cat([t[:, None], phase.cos(), -phase.sin()], 1)  # (L, emb_dim)
            inner = through(list(self.ffn)[:-1], features)  # (L, width)
            *_, last = self.ffn.parameters()  # channels first: the taps are the largest tensor
            scale = _NORM_SEQLEN / seqlen if self.norm == "length" else 1.0
            if self.windowed:  # h: (N, D, L)
                h = windowed_product(last, inner, self.alpha, 1 / span, self.shift, scale)
            else:
                h = (last @ inner.T).view(self.n_filters, self.d_model, seqlen)
                h = h * scale if self.norm == "length" else h
            if self.norm == "l1":
                h = h * (_NORM_L1 / h.abs().sum(-1, keepdim=True).clamp_min(1e-6))
            return h
