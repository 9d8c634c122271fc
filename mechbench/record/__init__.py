"""What is stored: configurations, results, provenance; atomic files and seeds. No torch."""
