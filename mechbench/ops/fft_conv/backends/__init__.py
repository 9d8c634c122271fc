"""Backends of `fft_conv`, one per file `NAME_backend.py`: see `mechbench.ops.fft_conv.contract`."""
