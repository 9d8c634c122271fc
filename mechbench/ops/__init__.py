"""Tensor functions, each with its slow reference beside it; they know no modules."""

from mechbench.ops.fft_conv import fft_conv, fft_conv_reference
from mechbench.ops.rotary import rotary
from mechbench.ops.short_conv import short_conv, short_conv_reference

__all__ = ["fft_conv", "fft_conv_reference", "rotary", "short_conv", "short_conv_reference"]
