"""Causal softmax attention over a sliding window, in blocks.

    y_t = W sum_{t - window < s <= t} softmax_s(q_t . k_s / sqrt(d_head)) v_s

Source: Beltagy et al. 2020 (Longformer), section 3.1; positions: Su et al. 2021. The sequence is
cut into blocks of `window` positions; each attends to itself and the block before it through a
banded mask. This takes O(L window D) time, and memory does not grow with L^2.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mechbench.catalogue.registry import register_operator
from mechbench.catalogue.settings import check_options
from mechbench.operators.fidelity import Fidelity
from mechbench.operators.multihead import MultiHead


@register_operator(
    "sliding-attention", source="Beltagy et al. 2020 (arXiv:2004.05150), section 3.1"
)
class SlidingAttention(MultiHead):
    """Causal multi-head attention (SDPA) over the last `window` tokens, with rotary positions.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        n_heads: heads; 0: as many as make d_head 32 (at least one).
        rotary_base: base of the rotary wavelengths.
        window: positions that a query sees, including its own.

    Raises:
        ConfigError: d_model is not an even multiple of n_heads, or an option out of range.
    """

    fidelity: ClassVar[tuple[Fidelity, ...]] = (
        Fidelity("softmax over the window with rotary positions", 8e-16),
    )

    window: int

    def __init__(
        self,
        d_model: int,
        max_seqlen: int,
        *,
        n_heads: int = 0,
        rotary_base: float = 10_000.0,
        window: int = 128,
    ) -> None:
        super().__init__(d_model, max_seqlen, n_heads=n_heads, rotary_base=rotary_base)
        check_options(window=window)
        self.window = window

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Map queries, keys and values, each (B, H, L, d), to outputs of that shape."""
        H, L, W = q.shape[1], q.shape[2], self.window
        head = [x[:, :, :W] for x in (q, k, v)]
        first = F.scaled_dot_product_attention(head[0], head[1], head[2], is_causal=True)
        if L <= W:
            return first
        # The padding lies in the future of every real query.
        q, k, v = (
            torch.unflatten(F.pad(x, (0, 0, 0, -L % W)).flatten(0, 1), 1, (-1, W))
            for x in (q, k, v)
        )  # (B H, N, W, d) each
        k, v = (torch.cat([x[:, :-1], x[:, 1:]], 2) for x in (k, v))  # (B H, N - 1, 2 W, d)
        r, c = torch.arange(W, device=q.device)[:, None], torch.arange(2 * W, device=q.device)
        band = (c > r) & (c <= r + W)  # (W, 2 W)
        rest = F.scaled_dot_product_attention(q[:, 1:], k, v, attn_mask=band)
        rest = torch.unflatten(rest.flatten(1, 2)[:, : L - W], 0, (-1, H))  # (B, H, L - W, d)
        return torch.cat([first, rest], 2)
