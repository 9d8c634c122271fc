"""Whether an operator is sound: what stands around every run, and what `mechbench check` tells."""

from mechbench.checks.attribution import blame, naming
from mechbench.checks.contract import breach, guard
from mechbench.checks.gate import after, before, settle
from mechbench.checks.watchdog import Watchdog

__all__ = ["Watchdog", "after", "before", "blame", "breach", "guard", "naming", "settle"]
