"""Tasks, one file each: what a sequence operator is asked to do.

A task file imports torch only inside its methods, so that parameters can be checked (and
`mechbench list tasks` printed) without loading torch.
"""
