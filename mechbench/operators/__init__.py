"""Operators, one file each: causal maps (B, L, d_model) -> (B, L, d_model)."""
