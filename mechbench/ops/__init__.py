"""Tensor functions, each with its slow reference beside it; they know no modules."""

from mechbench.ops.exp_scan import exp_delay, exp_merge, exp_scan, exp_scan_reference, exp_term
from mechbench.ops.fft_conv import fft_conv, fft_conv_reference
from mechbench.ops.rotary import rotary
from mechbench.ops.short_conv import short_conv, short_conv_reference

__all__ = [
    "exp_delay",
    "exp_merge",
    "exp_scan",
    "exp_scan_reference",
    "exp_term",
    "fft_conv",
    "fft_conv_reference",
    "rotary",
    "short_conv",
    "short_conv_reference",
]
