"""Tasks, one file each: what a sequence operator is asked to do.

A task file imports torch inside its methods only, so that its parameters are checked (and
`mechbench list tasks` is printed) before torch is loaded.
"""
