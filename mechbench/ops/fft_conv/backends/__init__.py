"""Backends of `fft_conv`, a file each, `NAME_backend.py`: see `mechbench.ops.fft_conv.contract`."""
