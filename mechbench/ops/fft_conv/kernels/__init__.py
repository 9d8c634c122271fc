"""Kernels of the long convolution: Triton's, and what launches those in `fft_conv.cuda`.

Modules with Triton kernels are imported only where they run.
"""
