"""Pieces that the Triton kernels of several operations share."""
