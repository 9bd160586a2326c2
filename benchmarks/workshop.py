"""Seconds that each exercise of the workshop takes, with right answers, in a kernel of its own."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pandas as pd
import papermill

from fairdiff_lib.workshop.build import copy_of, read_notebook, sources, write_notebook

BUDGET = 60.0  # seconds of an exercise, its first import included


def run_benchmarks() -> pd.DataFrame:
    """exercise, seconds, slowest_cell (its seconds), budget, within: one row per notebook."""
    rows = []
    for path in sources():
        with tempfile.TemporaryDirectory() as folder:
            copy, done = Path(folder) / path.name, Path(folder) / "done.ipynb"
            write_notebook(copy, copy_of(read_notebook(path), "right"))
            started = time.monotonic()
            found = papermill.execute_notebook(
                copy, done, cwd=folder, kernel_name="python3", progress_bar=False
            )
            seconds = time.monotonic() - started
        each = [cell.metadata.papermill.duration or 0.0 for cell in found.cells]
        rows.append((path.stem, seconds, max(each), BUDGET, seconds <= BUDGET))
    return pd.DataFrame(rows, columns=["exercise", "seconds", "slowest_cell", "budget", "within"])
