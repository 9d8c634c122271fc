"""The schedules that a configuration may name; which is the default says `record.config`."""

from __future__ import annotations

from mechbench.training.branches import StableDecay
from mechbench.training.schedules import Averaged, Constant, ScheduleFree

SCHEDULES: dict[str, type[Constant]] = {
    "constant": Constant,
    "averaged": Averaged,
    "wsd": StableDecay,
    "schedule-free": ScheduleFree,
}
