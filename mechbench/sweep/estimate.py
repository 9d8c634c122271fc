"""How long a cell takes at most, estimated from measured speeds if there are any. No torch."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from mechbench.record.config import Config

# Guesses for what nothing is known of: floating-point operations a second of one worker, the most
# tokens a second at d_model 64 and 2 layers, and the seconds of the shortest step. Those of a GPU
# are an H100's: there 8,192 tokens a step take 1 ms, and 65,536 go by at 16 to 42 M a second.
_FLOPS_PER_S = {"cpu": 2e10, "cuda": 1.5e13}
_TOKENS_PER_S = {"cpu": 2e5, "cuda": 2e7}
_STEP_S = {"cpu": 2e-3, "cuda": 1e-3}

Known = dict[tuple[str, str], list[tuple[float, float, float]]]


def known_speeds(results: Iterable[Mapping[str, Any]]) -> Known:
    """Return what stored results say of speed, by operator and device type."""
    known: Known = defaultdict(list)
    for data in results:
        rate, config = data.get("tokens_per_s"), data["config"]
        if rate:
            size = _size(config["d_model"], config["n_layers"])
            key = config["operator"], config["device_type"]
            known[key].append((math.log(size), math.log(config["seqlen"]), rate))
    return known


def estimate_s(config: Config, known: Known, done_tokens: int = 0) -> tuple[float, bool]:
    """Return the seconds that training takes if the whole budget is used, and if that is measured.

    A cell that is carried on has done some of its tokens.

    Measured means the speed of the same operator on the same kind of device, at the nearest size
    of model and length.
    """
    size, left = _size(config.d_model, config.n_layers), max(0, config.budget_tokens - done_tokens)
    near = known.get((config.operator, config.device_type))
    if near:
        here = math.log(size), math.log(config.seqlen)
        closest = min(near, key=lambda k: abs(k[0] - here[0]) + abs(k[1] - here[1]))
        rate = closest[2] * math.exp(closest[0] - here[0])
        return left / rate, True
    flops = 6 * (12 * size + config.n_layers * config.d_model * math.log2(config.seqlen + 1) * 10)
    if "attention" in config.operator:
        flops += 6 * config.n_layers * config.d_model * config.seqlen
    small, device = 2 * 64 * 64 / size, config.device_type
    step_tokens = config.batch_size * config.seqlen
    rate = min(
        _FLOPS_PER_S[device] / flops, _TOKENS_PER_S[device] * small, step_tokens / _STEP_S[device]
    )
    return left / rate, False


def duration(seconds: float) -> str:
    """Return seconds as text for people: "40 s", "12 min", "3.5 h", "2.1 days"."""
    for limit, unit, size in ((90, "s", 1), (5400, "min", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.{0 if unit == 's' else 1}f} {unit}"
    return f"{seconds / 86400:.1f} days"


def _size(d_model: int, n_layers: int) -> float:
    return float(n_layers * d_model * d_model)
