"""Where an operator stands among the known ones: what `mechbench compare` writes.

`known` finds the stored results that a suite can be compared with, `card` puts them beside one's
own, `ranks` and `profile` say where that is, `text`, `files` and `figure` write it down.
"""
