"""What `mechbench check` and `mechbench inspect` tell of an operator."""
