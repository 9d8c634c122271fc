"""The one backbone: every operator is trained and scored inside the same model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mechbench.operators.base import from_stored, make_operator
from mechbench.ops import Embedding, add_norm, autocast_dtype, linear, mlp, short_conv_tokens
from mechbench.plan.resolve import task_of
from mechbench.record.config import Config


class ShortConv(nn.Module):
    """Short causal convolution of each channel, added to its input: u + h * u + b.

    What it gives an operator is a look at the last few tokens, which some have of their own. The
    sum keeps the token itself in sight from the first step on.

    Source: the short convolution of BaseConv in the code of Arora et al. 2023 (Zoology,
    arXiv:2312.04927), which has a bias, PyTorch's initial weights and adds its input. There it is
    a layer of its own before the one with the mixer, and a linear map gates it. Here it has no
    gate and stands in the block, so that `n_layers` counts operators with it and without.
    """

    def __init__(self, d_model: int, taps: int) -> None:
        super().__init__()
        bound = taps**-0.5
        self.weight = nn.Parameter(torch.empty(d_model, taps).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(d_model).uniform_(-bound, bound))

    def forward(self, u: Tensor) -> Tensor:
        """Add the convolution: (B, L, D) -> (B, L, D)."""
        return u + short_conv_tokens(u, self.weight, self.bias)


class Block(nn.Module):
    """Pre-norm residual block: operator, then an MLP of 4 D with GELU.

    Args:
        d_model: D.
        operator: maps (B, L, D) to (B, L, D). It may have a method `channel_mixing`, which returns
            a module of its own, (B, L, D) to (B, L, D), for the place of the MLP, or None.
        short_conv: taps of the `ShortConv` before it; 0: none.
    """

    def __init__(self, d_model: int, operator: nn.Module, short_conv: int = 0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(d_model)
        self.short_conv = ShortConv(d_model, short_conv) if short_conv else nn.Identity()
        self.operator = operator
        self.norm2 = nn.LayerNorm(d_model)
        own = getattr(operator, "channel_mixing", None)
        self.channel_mixing: nn.Module | None = own() if callable(own) else None
        if self.channel_mixing is None:
            self.up = nn.Linear(d_model, 4 * d_model)
            self.down = nn.Linear(4 * d_model, d_model)

    def forward(self, x: Tensor, delta: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the residual stream (B, L, D) and what is to be added to it.

        The addition is left to the norm that follows: `add_norm` does both in one pass.
        """
        x, u = add_norm(x, delta, self.norm1)
        x, u = add_norm(x, self.operator(self.short_conv(u)), self.norm2, autocast_dtype(x))
        if self.channel_mixing is not None:
            return x, self.channel_mixing(u)
        return x, mlp(u, self.up, self.down)


class Backbone(nn.Module):
    """Embedding, `n_layers` blocks, norm, linear head; no positions beside the operator's own.

    Args:
        operator: registered name.
        options: the operator's options.
        vocab_size: V, tokens in and out.
        d_model: D.
        n_layers: blocks.
        max_seqlen: longest input, in tokens.
        short_conv: taps of the causal convolution before every operator; 0: none.
        input_dim: numbers a position where inputs are no tokens; then a linear map stands for the
            embedding, and the head gives one number.
    """

    def __init__(
        self,
        operator: str,
        options: dict[str, object],
        *,
        vocab_size: int,
        d_model: int,
        n_layers: int,
        max_seqlen: int,
        short_conv: int = 0,
        input_dim: int = 0,
    ) -> None:
        super().__init__()
        # PyTorch's unit variance: at 0.02 what blocks add drowns the token, and attention stays on
        # a plateau that it leaves after 250 steps with this.
        self.embed: nn.Module = (
            nn.Linear(input_dim, d_model) if input_dim else Embedding(vocab_size, d_model)
        )
        self.blocks = nn.ModuleList(
            Block(
                d_model,
                make_operator(
                    operator, d_model=d_model, max_seqlen=max_seqlen, layer=layer, **options
                ),
                short_conv,
            )
            for layer in range(n_layers)
        )
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, 1 if input_dim else vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, L) to logits (B, L, V), or numbers (B, L, input_dim) to (B, L, 1)."""
        x, delta = self.embed(tokens), None
        x = x.to(self.head.weight.dtype)  # a linear map under autocast gives less than float32
        for block in self.blocks:
            x, delta = block(x, delta)
        _, u = add_norm(x, delta, self.norm, autocast_dtype(x))
        return linear(u, self.head)


def build_model(config: Config, max_seqlen: int) -> Backbone:
    """Build the model of a configuration, freshly initialised; models are built nowhere else.

    Args:
        config: a resolved configuration.
        max_seqlen: longest input, in tokens.

    Raises:
        ConfigError: an option of the operator does not fit.
        OperatorError: the operator cannot be built.
    """
    return Backbone(
        config.operator,
        from_stored(config.operator, config.operator_options),
        vocab_size=config.vocab_size,
        d_model=config.d_model,
        n_layers=config.n_layers,
        max_seqlen=max_seqlen,
        short_conv=config.short_conv,
        input_dim=task_of(config).input_dim,
    )
