"""Measured comparisons: what Penstock adds to the things it stands on. Run by `make bench`, never part of the timed tests.

    __main__ -> flow_part | search_part | ... one a part -> processes, worker (load, references) -> closed_loop -> report

Every number is taken beside the number it is compared with, in rounds that alternate between the two, because a machine's
noise is larger than most differences. What is quoted is the median of the rounds, and CPU time rather than wall time where
both exist.
"""
