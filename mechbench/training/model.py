"""The one backbone: every operator is trained and scored inside the same model."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mechbench.operators.base import from_stored, make_operator
from mechbench.ops import add_norm, autocast_dtype, linear
from mechbench.plan.resolve import task_of
from mechbench.record.config import Config


class Block(nn.Module):
    """Pre-norm residual block: operator, then an MLP of 4 D with GELU."""

    def __init__(self, d_model: int, operator: nn.Module) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(d_model)
        self.operator = operator
        self.norm2 = nn.LayerNorm(d_model)
        self.up = nn.Linear(d_model, 4 * d_model)
        self.down = nn.Linear(4 * d_model, d_model)

    def forward(self, x: Tensor, delta: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the residual stream (B, L, D) and what is to be added to it.

        The addition is left to the norm that follows: `add_norm` does both in one pass.
        """
        x, u = add_norm(x, delta, self.norm1)
        x, u = add_norm(x, self.operator(u), self.norm2, autocast_dtype(x))
        return x, linear(F.gelu(linear(u, self.up)), self.down)


class Backbone(nn.Module):
    """Embedding, `n_layers` blocks, norm, linear head; no positions beside the operator's own.

    Args:
        operator: registered name.
        options: the operator's options.
        vocab_size: V, tokens in and out.
        d_model: D.
        n_layers: blocks.
        max_seqlen: longest input, in tokens.
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
        input_dim: int = 0,
    ) -> None:
        super().__init__()
        # PyTorch's unit variance: at 0.02 what blocks add drowns the token, and attention stays on
        # a plateau that it leaves after 250 steps with this.
        self.embed: nn.Module = (
            nn.Linear(input_dim, d_model) if input_dim else nn.Embedding(vocab_size, d_model)
        )
        self.blocks = nn.ModuleList(
            Block(
                d_model,
                make_operator(
                    operator, d_model=d_model, max_seqlen=max_seqlen, layer=layer, **options
                ),
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
        input_dim=task_of(config).input_dim,
    )
