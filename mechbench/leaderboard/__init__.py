"""Leaderboards: leaderboards/NAME/results.csv in, tables, plots and a page out. No torch."""
