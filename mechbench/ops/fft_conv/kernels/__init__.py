"""Triton kernels of the long convolution; imported only where they run."""
