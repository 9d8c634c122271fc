"""Tensor functions, each with its slow reference beside it; they know no modules."""

from mechbench.ops.affine_scan import affine_scan, affine_scan_reference
from mechbench.ops.decay_attention import (
    decay_attention,
    decay_attention_matrix,
    decay_attention_reference,
)
from mechbench.ops.delta_rule import delta_rule, delta_rule_matrix, delta_rule_reference
from mechbench.ops.fft_conv import fft_conv, fft_conv_reference
from mechbench.ops.rotary import rotary
from mechbench.ops.short_conv import short_conv, short_conv_reference

__all__ = [
    "affine_scan",
    "affine_scan_reference",
    "decay_attention",
    "decay_attention_matrix",
    "decay_attention_reference",
    "delta_rule",
    "delta_rule_matrix",
    "delta_rule_reference",
    "fft_conv",
    "fft_conv_reference",
    "rotary",
    "short_conv",
    "short_conv_reference",
]
