"""Tensor functions, each with its slow reference beside it; they know no modules."""

<<<<<<< HEAD
<<<<<<< HEAD
from mechbench.ops.add_norm import add_norm
from mechbench.ops.channels import from_channels, to_channels
from mechbench.ops.cross_entropy import cross_entropy
=======
from mechbench.ops.exp_scan import exp_delay, exp_merge, exp_scan, exp_scan_reference, exp_term
>>>>>>> wt-ops1
=======
from mechbench.ops.affine_scan import affine_scan, affine_scan_reference
from mechbench.ops.decay_attention import (
    decay_attention,
    decay_attention_matrix,
    decay_attention_reference,
)
from mechbench.ops.delta_rule import delta_rule, delta_rule_matrix, delta_rule_reference
>>>>>>> wt-ops2
from mechbench.ops.fft_conv import fft_conv, fft_conv_reference
from mechbench.ops.hyena_mix import hyena_mix
from mechbench.ops.precision import autocast_dtype
from mechbench.ops.rotary import rotary
from mechbench.ops.short_conv import short_conv, short_conv_reference
from mechbench.ops.window import window

__all__ = [
<<<<<<< HEAD
<<<<<<< HEAD
    "add_norm",
    "autocast_dtype",
    "cross_entropy",
    "fft_conv",
    "fft_conv_reference",
    "from_channels",
    "hyena_mix",
    "rotary",
    "short_conv",
    "short_conv_reference",
    "to_channels",
    "window",
=======
    "exp_delay",
    "exp_merge",
    "exp_scan",
    "exp_scan_reference",
    "exp_term",
=======
    "affine_scan",
    "affine_scan_reference",
    "decay_attention",
    "decay_attention_matrix",
    "decay_attention_reference",
    "delta_rule",
    "delta_rule_matrix",
    "delta_rule_reference",
>>>>>>> wt-ops2
    "fft_conv",
    "fft_conv_reference",
    "rotary",
    "short_conv",
    "short_conv_reference",
<<<<<<< HEAD
>>>>>>> wt-ops1
=======
>>>>>>> wt-ops2
]
