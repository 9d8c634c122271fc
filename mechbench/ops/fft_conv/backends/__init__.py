"""Backends of `fft_conv`, one per file `NAME_backend.py`: see `mechbench.ops.fft_conv.contract`.

Their kernels are in `fft_conv.kernels`, sources in CUDA C++ in `fft_conv.cuda`.
"""
