"""Is this operator sound, and which properties of attention does it have?"""

from mechbench.checks.gate import blame, check_causality, check_contract, leak

__all__ = ["blame", "check_causality", "check_contract", "leak"]
