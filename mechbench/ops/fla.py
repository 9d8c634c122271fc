"""Whether the kernels of flash-linear-attention can run (extra `mechbench[fla]`).

Source: https://github.com/fla-org/flash-linear-attention, package `fla`, whose `ops` are meant
here. It is imported only where one of them is asked for by name. Its layout is (B, L, H, ..), and
its kernels are tuned at their first call, which is before a step is captured as a CUDA graph.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import warnings
from functools import cache

import torch
from torch import Tensor

from mechbench.ops.triton import unavailable

# From the first to before the second, gradients of decays and of what they weigh are wrong on
# Hopper GPUs (https://github.com/fla-org/flash-linear-attention/issues/640); fla refuses them, but
# for constant decays, with which the kernel reads beyond its memory there (seen with 0.6.0).
_BROKEN_ON_HOPPER = (3, 4, 0), (3, 7, 1)


@cache
def missing() -> str | None:
    """Say why the package cannot be used here; None if it can."""
    try:
        found = importlib.util.find_spec("fla") is not None
    except ValueError:  # a half-imported package
        found = False
    if not found:
        return "the package flash-linear-attention is not installed: pip install 'mechbench[fla]'"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it imports
            importlib.import_module("fla.ops")
    except Exception as error:  # a version of Triton, of PyTorch or of its own that does not fit
        return f"flash-linear-attention does not load: {' '.join(str(error).split())[:200]}"
    return None


def refused(*tensors: Tensor, decays: bool = False) -> str | None:
    """Say why the package's kernels cannot take these tensors; None if they can.

    Args:
        tensors: what is read, all on one device.
        decays: whether the state decays.
    """
    reason = missing() or unavailable(*tensors)
    if reason is None and decays and tensors[0].is_cuda:
        return _miscompiled(torch.cuda.get_device_capability(tensors[0].device))
    return reason


def _miscompiled(capability: tuple[int, int]) -> str | None:
    import triton

    first, fixed = _BROKEN_ON_HOPPER
    version = tuple(int(n) for n in re.findall(r"\d+", triton.__version__)[:3])
    if capability[0] != 9 or not first <= version < fixed:
        return None
    needed = ".".join(str(n) for n in fixed)
    return (
        f"Triton {triton.__version__} miscompiles its kernels with decays on Hopper GPUs: "
        f"expected Triton {needed} or later"
    )
