"""What `mechbench check` and `mechbench inspect` find out about an operator."""
