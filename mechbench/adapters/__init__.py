"""Components of other packages, one file a package: see `mechbench.families`."""
