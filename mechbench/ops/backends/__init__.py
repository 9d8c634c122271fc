"""Backends of `fft_conv`, one file each, `NAME_backend.py`: see `mechbench.ops.fft_conv.Backend`."""
