"""What all tests share: no network, one thread per test process, figures without a display."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.disk.places import Places
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.study import Study


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of oracles and real data beside the repository; skips where there is none."""
    folder = Path(os.environ.get("FAIRDIFF_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip("needs the shared folder beside the repository (or FAIRDIFF_SHARED)")
    return folder


class StudyOf(Protocol):
    """A study whose cohort is the one that is given, not read from disk."""

    def __call__(self, settings: Settings, cohort: Cohort, **roots: str) -> Study: ...


@pytest.fixture(scope="session")
def study_of() -> StudyOf:
    def made(settings: Settings, cohort: Cohort, **roots: str) -> Study:
        study = Study(settings, Places(settings, **roots))
        study.__dict__["cohort"] = cohort  # where the cached property keeps it
        return study

    return made
