"""What all tests share: no network, one thread per test process, figures without a display."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of oracles and real data beside the repository; skips where there is none."""
    folder = Path(os.environ.get("FAIRDIFF_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip("needs the shared folder beside the repository (or FAIRDIFF_SHARED)")
    return folder
