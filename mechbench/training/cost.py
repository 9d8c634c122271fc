"""What a model costs: floating-point operations per token."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def _fft_flops(*args: Any, out_val: Any = None, **kwargs: Any) -> int:
    """Return 2.5 n log2 n per real transform, as is customary (5 n log2 n per complex one)."""
    x, axes = args[0], args[1]
    n = max(out_val.shape[axes[-1]], x.shape[axes[-1]])
    return int(x.numel() // x.shape[axes[-1]] * 2.5 * n * math.log2(max(2, n)))


FFT_FLOPS = {torch.ops.aten._fft_r2c: _fft_flops, torch.ops.aten._fft_c2r: _fft_flops}
for _packet in FFT_FLOPS:
    _fft_flops._get_raw = True  # type: ignore[attr-defined]  # formula sees tensors, not shapes


def flops_per_token(model: nn.Module, input_seqlen: int, input_dim: int = 0) -> float | None:
    """Return the FLOPs per token of a forward and backward pass over `input_seqlen` tokens.

    Counted on the meta device, so nothing is computed or allocated. Matrix products, SDPA and
    FFTs count; elementwise work does not. None where the operator cannot run without data.
    """
    try:
        ghost = copy.deepcopy(model).to("meta")
        tokens = torch.zeros(1, input_seqlen, dtype=torch.int64, device="meta")
        numbers = torch.zeros(1, input_seqlen, input_dim, device="meta")
        with FlopCounterMode(display=False, custom_mapping=FFT_FLOPS) as counter:
            logits = ghost(numbers if input_dim else tokens)
            F.cross_entropy(logits.flatten(0, 1), tokens.flatten()).backward()  # type: ignore[no-untyped-call]
    except Exception:
        # A plugin may need real data; its cost is then unknown, which is no fault.
        return None
    return float(counter.get_total_flops()) / input_seqlen
