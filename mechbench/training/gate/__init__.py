"""The checks around every run: the operator's contract, and that the model is causal."""

from mechbench.training.gate.attribution import blame, naming
from mechbench.training.gate.contract import breach, guarded
from mechbench.training.gate.probe import after, before, settle
from mechbench.training.gate.watchdog import Watchdog

__all__ = ["Watchdog", "after", "before", "blame", "breach", "guarded", "naming", "settle"]
