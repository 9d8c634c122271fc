"""The layers of flash-linear-attention as operators: `fla:GatedDeltaNet` and the like.

Each attribute of this module wraps the class of that name in `fla.layers` as a factory with the
signature of an operator; its options are those of the class. The layers are written for models of
2,048 channels, so three options follow d_model unless given: `num_heads` and `head_dim` (heads of
32 channels, or of 32 times `expand` where the layer has inner channels) and `intermediate_size`. If
another option does not fit a small model (`expand_ratio`, `num_kv_heads`), the layer complains when
it is built. The layers run only on CUDA.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from torch import Tensor, nn

from mechbench.catalogue.options import signature_options
from mechbench.catalogue.settings import storable
from mechbench.operators.base import RESERVED, check_seqlen

_OURS = ("hidden_size", "layer_idx", *RESERVED)  # passed by the adapter, or by the harness
_D_HEAD = 32
_FOLLOW = ("num_heads", "head_dim", "intermediate_size")


class FlaLayer(nn.Module):
    """An operator around a layer that returns a tuple or a tensor."""

    def __init__(self, layer: nn.Module, max_seqlen: int) -> None:
        super().__init__()
        self.layer, self.max_seqlen = layer, max_seqlen

    def forward(self, u: Tensor) -> Tensor:
        """Mix along the sequence: (B, L, D) -> (B, L, D).

        Raises:
            SeqlenError: L is above max_seqlen.
        """
        check_seqlen(u, self.max_seqlen)
        out = self.layer(u)
        y: Tensor = out[0] if isinstance(out, tuple) else out
        return y


class Factory:
    """Builds one class of `fla.layers`; its signature lists the class's options."""

    def __init__(self, layer_class: type[nn.Module]) -> None:
        self.layer_class = layer_class
        self.__doc__ = inspect.getdoc(layer_class)
        accepted = signature_options(layer_class, _OURS)
        open_ended = accepted.pop("**", None) is not None
        self.follows = {
            name: accepted[name].default
            for name in _FOLLOW
            if name in accepted and accepted[name].default is not None
        }
        sizes = inspect.signature(layer_class).parameters
        self.full_width = sizes["hidden_size"].default if "hidden_size" in sizes else None
        self.knows_layer = "layer_idx" in sizes or open_ended
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
        """Build the layer for d_model channels, as the block `layer`."""
        filled = {name for name in self.follows if options.get(name) is None}
        if "num_heads" in filled:
            options["num_heads"] = max(1, d_model // _D_HEAD)
        if "head_dim" in filled:
            heads = options.get("num_heads") or max(1, d_model // _D_HEAD)
            options["head_dim"] = int(options.get("expand") or 1) * d_model // heads
        if "intermediate_size" in filled and isinstance(self.full_width, int):
            default = self.follows["intermediate_size"]
            options["intermediate_size"] = max(1, default * d_model // self.full_width)
        if self.knows_layer:
            options["layer_idx"] = layer
        built = self.layer_class(hidden_size=d_model, **options)
        return FlaLayer(built, max_seqlen)


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
