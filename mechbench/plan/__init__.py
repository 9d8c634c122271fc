"""Suites to cells, and what a user gave to a whole configuration. No torch at import."""
