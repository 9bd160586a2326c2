"""The one training loop, and the runs that are made with it."""

from fairdiff_lib.train.runs import Run, start, train

__all__ = ["Run", "start", "train"]
