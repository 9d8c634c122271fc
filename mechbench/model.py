"""The one backbone: every operator is trained and scored inside the same model."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mechbench.operators.base import make_operator


class Block(nn.Module):
    """Pre-norm residual block: operator, then an MLP of 4 D with GELU."""

    def __init__(self, d_model: int, operator: nn.Module) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(d_model)
        self.operator = operator
        self.norm2 = nn.LayerNorm(d_model)
        self.up = nn.Linear(d_model, 4 * d_model)
        self.down = nn.Linear(4 * d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, L, D) to (B, L, D)."""
        x = x + self.operator(self.norm1(x))
        y: Tensor = x + self.down(F.gelu(self.up(self.norm2(x))))
        return y


class Backbone(nn.Module):
    """Embedding, `n_layers` blocks, norm, linear head; no positions beside the operator's own.

    Args:
        operator: registered name.
        options: the operator's options.
        vocab_size: V, tokens in and out.
        d_model: D.
        n_layers: blocks.
        max_seqlen: longest input, in tokens.
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
    ) -> None:
        super().__init__()
        # PyTorch's unit variance: at 0.02 what blocks add drowns the token, and attention stays on
        # a plateau that it leaves after 250 steps with this.
        self.embed = nn.Embedding(vocab_size, d_model)
        self.blocks = nn.ModuleList(
            Block(
                d_model,
                make_operator(operator, d_model=d_model, max_seqlen=max_seqlen, **options),
            )
            for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, L) to logits (B, L, V)."""
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits
