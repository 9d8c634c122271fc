"""Causal long convolution with gates and a skip term: one function, several backends.

    y = post_gate * (h * (pre_gate u) + skip (pre_gate u)),   (h * v)_t = sum_{s <= t} h_{t-s} v_s

Source: Poli et al. 2023, Definition 3.1 and section 3.4 (FFT convolution in O(L log L)).
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache, partial

import torch
from torch import Tensor

from mechbench.errors import ConfigError
from mechbench.ops.backends import choose
from mechbench.ops.fft_conv import backends as _backends
from mechbench.ops.fft_conv.contract import Backend, Core, Whole
from mechbench.ops.fft_conv.core import gated_conv
from mechbench.ops.used import note


@cache
def available_backends() -> dict[str, Backend]:
    """Return the backends by name, in order of preference."""
    found = {}
    for info in pkgutil.iter_modules(_backends.__path__):
        module = importlib.import_module(f"{_backends.__name__}.{info.name}")
        found[info.name.removesuffix("_backend")] = module
    return dict(sorted(found.items(), key=lambda item: -item[1].PRIORITY))


def choose_backend(u: Tensor, h: Tensor, backend: str = "auto") -> str:
    """Return the name of the backend that `fft_conv` uses for these inputs.

    Raises:
        ConfigError: no such backend, or the one named cannot take the inputs.
    """
    known = {name: partial(x.unsupported, u, h) for name, x in available_backends().items()}
    return choose("fft_conv", u, backend, known)


def pick_backend(u: Tensor, h: Tensor, backend: str = "auto") -> Backend:
    """Return the backend that `choose_backend` names, and record that it was used."""
    name = choose_backend(u, h, backend)
    note("fft_conv", u, name)
    return available_backends()[name]


def fft_conv(
    u: Tensor,
    h: Tensor,
    skip: Tensor | None = None,
    pre_gate: Tensor | None = None,
    post_gate: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Convolve every channel causally with its filter, in O(B D L log L) time and O(B D L) memory.

    Args:
        u: (B, D, L) input; float64, float32, bfloat16 or float16. Transforms run in float32 for
            the half types. On CUDA short inputs of these are convolved directly, in O(B D L^2).
        h: (D, K) filters, K of any length; taps beyond L have no effect.
        skip: (D,) weight of the gated input in the output, or None.
        pre_gate: (B, D, L) factor before the convolution, or None.
        post_gate: (B, D, L) factor after it, or None.
        backend: "auto" or one of `available_backends()`.

    Returns:
        (B, D, L) in the dtype of `u`.

    Raises:
        ConfigError: shapes that do not match, or a backend that cannot take the inputs.
    """
    _check(u, h, skip, pre_gate, post_gate)
    chosen = pick_backend(u, h, backend)
    if isinstance(chosen, Core):
        return gated_conv(chosen, u, h, skip, pre_gate, post_gate)
    assert isinstance(chosen, Whole)
    return chosen.conv(u, h, skip, pre_gate, post_gate)


def fft_conv_reference(
    u: Tensor,
    h: Tensor,
    skip: Tensor | None = None,
    pre_gate: Tensor | None = None,
    post_gate: Tensor | None = None,
) -> Tensor:
    """Compute `fft_conv` as a direct sum over a Toeplitz matrix, in O(B D L^2): for tests."""
    _check(u, h, skip, pre_gate, post_gate)
    L = u.shape[-1]
    v = u if pre_gate is None else u * pre_gate
    lag = torch.arange(L, device=u.device)[:, None] - torch.arange(L, device=u.device)
    taps = torch.cat([h[:, :L], h.new_zeros(len(h), max(0, L - h.shape[1]))], 1)
    toeplitz = torch.where(lag >= 0, taps[:, lag.clamp_min(0)], 0)  # (D, L, L)
    y = torch.einsum("dts,bds->bdt", toeplitz, v)
    if skip is not None:
        y = y + skip[:, None] * v
    return y if post_gate is None else y * post_gate


def _check(
    u: Tensor,
    h: Tensor,
    skip: Tensor | None,
    pre_gate: Tensor | None,
    post_gate: Tensor | None,
) -> None:
    if u.ndim != 3 or u.shape[-1] < 1:
        raise ConfigError(f"u has shape {tuple(u.shape)}: expected (B, D, L) with L of at least 1")
    D = u.shape[1]
    if h.ndim != 2 or h.shape[0] != D or h.shape[1] < 1:
        raise ConfigError(f"h has shape {tuple(h.shape)}: expected (D, K) with D = {D}")
    if skip is not None and skip.shape != (D,):
        raise ConfigError(f"skip has shape {tuple(skip.shape)}: expected ({D},)")
    for name, gate in (("pre_gate", pre_gate), ("post_gate", post_gate)):
        if gate is not None and gate.shape != u.shape:
            raise ConfigError(f"{name} has shape {tuple(gate.shape)}: expected {tuple(u.shape)}")
