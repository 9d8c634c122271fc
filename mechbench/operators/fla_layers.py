"""The layers of flash-linear-attention as operators: `fla:GatedDeltaNet` and the like.

Each attribute of this module wraps the class of that name in `fla.layers` as a factory with the
signature of an operator; its options are those of the class. The layers are written for models of
2,048 channels, so their sizes follow d_model unless given: heads of 32 channels (of 32 times
`expand` where the layer has inner channels; as many query heads to one key head as by the class's
defaults), inner channels in proportion. Where another option does not fit a small model, the layer
complains when it is built. The layers run only on CUDA, and

- a layer that wants values of the first layer gets none: each is a first layer of a model of two;
- what another layer has to make (keys, values) no operator gets: such a class is refused;
- a layer that refuses float32 computes in bfloat16 also outside autocast, and returns float32;
- one that computes short inputs without a backward pass outside training computes them as in
  training where gradients are wanted;
- float64 is refused: the kernels compute in float32 whatever they are given.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mechbench.catalogue.options import signature_options
from mechbench.catalogue.settings import storable
from mechbench.errors import ConfigError
from mechbench.operators.base import RESERVED, check_seqlen
from mechbench.ops import autocast_dtype

_OURS = ("hidden_size", "layer_idx", *RESERVED)  # passed by the adapter, or by the harness
_D_HEAD = 32
_DEPTH = 2  # layers of the model whose first layer every layer is, where it asks
_FOLLOW = ("num_heads", "num_kv_heads", "num_key_value_heads", "head_dim", "intermediate_size")
_HALF = re.compile(r"\b(bf|bfloat|fp)16\b", re.IGNORECASE)  # in what a layer says to float32


class FlaLayer(nn.Module):
    """An operator around a layer that returns a tuple or a tensor."""

    def __init__(self, layer: nn.Module, max_seqlen: int, absent: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.layer, self.max_seqlen = layer, max_seqlen
        self.absent = dict.fromkeys(absent)  # arguments that the layer asks for and may be None

    def forward(self, u: Tensor) -> Tensor:
        """Mix along the sequence: (B, L, D) -> (B, L, D).

        Raises:
            SeqlenError: L is above max_seqlen.
            TypeError: u is float64, on CUDA.
        """
        check_seqlen(u, self.max_seqlen)
        if u.is_cuda and u.dtype == torch.float64:
            raise TypeError("the kernels of flash-linear-attention have no float64")
        with _as_trained(self.layer):
            try:
                return self._mix(u)
            except Exception as error:
                if autocast_dtype(u) != torch.float32 or not _HALF.search(str(error)):
                    raise
            with torch.autocast(u.device.type, torch.bfloat16):
                return self._mix(u).to(u.dtype)

    def _mix(self, u: Tensor) -> Tensor:
        out = self.layer(u, **self.absent)
        y: Tensor = out[0] if isinstance(out, tuple) else out
        return y


@contextlib.contextmanager
def _as_trained(layer: nn.Module) -> Iterator[None]:
    """Let the layer choose as in training while gradients are wanted; its parts stay as they are.

    In evaluation many layers with a `mode` compute up to 64 tokens with kernels that have no
    backward pass.
    """
    if layer.training or not torch.is_grad_enabled() or not hasattr(layer, "mode"):
        yield
        return
    layer.training = True
    try:
        yield
    finally:
        layer.training = False


class Factory:
    """Builds one class of `fla.layers`; its signature lists the class's options."""

    def __init__(self, layer_class: type[nn.Module]) -> None:
        self.layer_class = layer_class
        self.__doc__ = inspect.getdoc(layer_class)
        accepted = signature_options(layer_class, _OURS)
        open_ended = accepted.pop("**", None) is not None
        defaults = {name: p.default for name, p in accepted.items()}
        self.follows = {k: defaults[k] for k in _FOLLOW if defaults.get(k) is not None}
        if "expand_ratio" in defaults and defaults.get("num_heads", 0) is None:
            self.follows["expand_ratio"] = defaults["expand_ratio"]  # the channels of a head
        if "num_hidden_layers" in defaults:
            self.follows["num_hidden_layers"] = defaults["num_hidden_layers"]
        sizes = inspect.signature(layer_class).parameters
        self.full_width = sizes["hidden_size"].default if "hidden_size" in sizes else None
        self.knows_layer = "layer_idx" in sizes or open_ended
        asked = list(inspect.signature(layer_class.forward).parameters.values())[2:]
        self.always_first = "v_first" in (p.name for p in asked)
        self.asked = tuple(
            p.name for p in asked if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
        )
        own = [
            inspect.Parameter("d_model", inspect.Parameter.KEYWORD_ONLY),
            inspect.Parameter("max_seqlen", inspect.Parameter.KEYWORD_ONLY),
            inspect.Parameter("layer", inspect.Parameter.KEYWORD_ONLY, default=0),
        ]
        self.__signature__ = inspect.Signature(
            [*own, *(self._option(p) for p in accepted.values() if storable(p.default))]
        )

    def _option(self, parameter: inspect.Parameter) -> inspect.Parameter:
        follows = parameter.name in self.follows
        return parameter.replace(
            kind=inspect.Parameter.KEYWORD_ONLY,
            default=None if follows else parameter.default,
            annotation=int | None if follows else _annotation(parameter),
        )

    def __call__(
        self, *, d_model: int, max_seqlen: int, layer: int = 0, **options: Any
    ) -> FlaLayer:
        """Build the layer for d_model channels, as the block `layer`.

        Raises:
            ConfigError: the layer needs what another layer makes.
        """
        absent = tuple(name for name in self.asked if name == "attention_mask")
        others = [name for name in self.asked if name not in absent]
        if others:
            raise ConfigError(
                f"{self.layer_class.__name__} of flash-linear-attention is no operator by itself: "
                f"it needs {', '.join(others)} of another layer"
            )
        options |= self._sizes(d_model, options)
        if self.knows_layer:
            options["layer_idx"] = 0 if self.always_first else layer
        built = self.layer_class(hidden_size=d_model, **options)
        return FlaLayer(built, max_seqlen, absent)

    def _sizes(self, d_model: int, given: Mapping[str, Any]) -> dict[str, int]:
        """Return the sizes that follow d_model and are not given."""
        n_heads = given.get("num_heads") or _heads(d_model)
        full, shared = self.follows.get("num_heads"), self.follows.get("num_kv_heads")
        group = full // shared if isinstance(full, int) and isinstance(shared, int) else 1
        n_shared = max(1, n_heads // group)
        found = {
            "num_heads": n_shared * group,
            "num_kv_heads": n_shared,
            "num_key_value_heads": n_heads,
            "head_dim": int(given.get("expand") or 1) * d_model // n_heads,
            "expand_ratio": d_model // n_heads,
            "num_hidden_layers": _DEPTH,
        }
        if isinstance(self.full_width, int) and "intermediate_size" in self.follows:
            width = self.follows["intermediate_size"] * d_model // self.full_width
            found["intermediate_size"] = max(1, width)
        return {k: v for k, v in found.items() if k in self.follows and given.get(k) is None}


def _heads(d_model: int) -> int:
    """Return the most heads of at least 32 channels that share d_model evenly; at least one."""
    return next((n for n in range(d_model // _D_HEAD, 1, -1) if d_model % n == 0), 1)


def _annotation(parameter: inspect.Parameter) -> Any:
    """Return the annotation, widened to allow the default: `int = None` is common there."""
    kind, default = parameter.annotation, parameter.default
    if kind not in (int, float, bool, str):
        return kind
    if default is None:
        return kind | None
    fits = isinstance(default, (int, float) if kind is float else kind)
    return kind if fits else inspect.Parameter.empty


def __getattr__(name: str) -> Factory:
    if name.startswith("_"):
        raise AttributeError(name)
    return Factory(getattr(importlib.import_module("fla.layers"), name))
