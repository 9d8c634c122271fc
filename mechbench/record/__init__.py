"""What is stored: configurations, results, provenance, whole files, seeds. No torch."""
