"""Tensor functions, each beside its slow reference; none depends on an nn.Module of ours."""

from mechbench.ops.add_norm import add_norm
from mechbench.ops.affine_scan import affine_scan, affine_scan_reference
from mechbench.ops.channel_decay import (
    channel_decay_attention,
    channel_decay_reference,
    channel_decay_scores,
)
from mechbench.ops.channels import from_channels, to_channels
from mechbench.ops.cross_entropy import cross_entropy
from mechbench.ops.decay_attention import (
    decay_attention,
    decay_attention_matrix,
    decay_attention_reference,
)
from mechbench.ops.delta_rule import (
    delta_product,
    delta_rule,
    delta_rule_matrix,
    delta_rule_reference,
)
from mechbench.ops.diagonal_scan import (
    diagonal_scan,
    diagonal_scan_matrix,
    diagonal_scan_reference,
)
from mechbench.ops.dplr import dplr, dplr_matrix, dplr_reference
from mechbench.ops.embedding import Embedding, embedding
from mechbench.ops.exp_average import decayed_average, exp_average_reference, windowed_average
from mechbench.ops.exp_scan import exp_delay, exp_merge, exp_scan, exp_scan_reference, exp_term
from mechbench.ops.fft_conv import fft_conv, fft_conv_reference
from mechbench.ops.forgetting_attention import (
    forgetting_attention,
    forgetting_heads,
    forgetting_weights,
    log_gates,
)
from mechbench.ops.gated_norm import gated_norm, heads_norm, norm_gated
from mechbench.ops.group_norm import gated_head_norm, head_norm
from mechbench.ops.hyena_mix import hyena_mix
from mechbench.ops.linear import affine, linear
from mechbench.ops.mlp import mlp
from mechbench.ops.precision import autocast_dtype
from mechbench.ops.rotary import rotary, rotary_heads
from mechbench.ops.rwkv7 import rwkv7_output, rwkv7_signals
from mechbench.ops.selective_scan import (
    selective_scan,
    selective_scan_matrix,
    selective_scan_reference,
)
from mechbench.ops.short_conv import short_conv, short_conv_reference, short_conv_tokens
from mechbench.ops.soft_decay import soft_decay
from mechbench.ops.split_linear import split_linear
from mechbench.ops.taylor_attention import (
    taylor_attention,
    taylor_attention_reference,
)
from mechbench.ops.token_shift import with_earlier
from mechbench.ops.unit import unit
from mechbench.ops.window import window

__all__ = [
    "Embedding",
    "add_norm",
    "affine",
    "affine_scan",
    "affine_scan_reference",
    "autocast_dtype",
    "channel_decay_attention",
    "channel_decay_reference",
    "channel_decay_scores",
    "cross_entropy",
    "decay_attention",
    "decay_attention_matrix",
    "decay_attention_reference",
    "decayed_average",
    "delta_product",
    "delta_rule",
    "delta_rule_matrix",
    "delta_rule_reference",
    "diagonal_scan",
    "diagonal_scan_matrix",
    "diagonal_scan_reference",
    "dplr",
    "dplr_matrix",
    "dplr_reference",
    "embedding",
    "exp_average_reference",
    "exp_delay",
    "exp_merge",
    "exp_scan",
    "exp_scan_reference",
    "exp_term",
    "fft_conv",
    "fft_conv_reference",
    "forgetting_attention",
    "forgetting_heads",
    "forgetting_weights",
    "from_channels",
    "gated_head_norm",
    "gated_norm",
    "head_norm",
    "heads_norm",
    "hyena_mix",
    "linear",
    "log_gates",
    "mlp",
    "norm_gated",
    "rotary",
    "rotary_heads",
    "rwkv7_output",
    "rwkv7_signals",
    "selective_scan",
    "selective_scan_matrix",
    "selective_scan_reference",
    "short_conv",
    "short_conv_reference",
    "short_conv_tokens",
    "soft_decay",
    "split_linear",
    "taylor_attention",
    "taylor_attention_reference",
    "to_channels",
    "unit",
    "window",
    "windowed_average",
    "with_earlier",
]
