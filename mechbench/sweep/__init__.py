"""Sweeps: a suite's cells planned, run by worker processes or a Ray cluster, and recorded."""
