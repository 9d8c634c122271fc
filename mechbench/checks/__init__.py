"""Whether an operator is sound: what stands before every run, and what `mechbench check` tells."""

from mechbench.checks.gate import blame, check_causality, check_contract, leak, naming

__all__ = ["blame", "check_causality", "check_contract", "leak", "naming"]
