"""Pools of images whose own KID is the truth of the proof's layers I and T.

An audit is a subsample of a pool without replacement. As KID is a mean over pairs of different
subjects, its expectation over subsamples is the pool's own KID, exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import delayed

from fairdiff_lib.audit.estimate import Bools, Estimate, Floats, Groups, group_units
from fairdiff_lib.audit.kid import Kernel, fit_kernel, kid
from fairdiff_lib.classify.features import Extractor, Scale, extract
from fairdiff_lib.classify.runs import load_encoder, load_extractor
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.disk.files import atomic_file, read_json, write_json
from fairdiff_lib.disk.places import Places
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.studies.proof.audits import side_by_side

CHUNK = 250  # images between two files: what a kill can cost
TRUTH_COLUMNS = ("layer", "law", "images", "kid", "standard_error")


# -- feature space -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Space:
    """The study's own features and kernel, fixed on its training reals."""

    extractor: Extractor
    scale: Scale
    kernel: Kernel

    @classmethod
    def of(cls, settings: Settings, layout: Places, cohort: Cohort) -> Space:
        """Trains the encoder where it is missing."""
        extractor = load_extractor(settings, load_encoder(settings, layout, cohort))
        images = cohort.included().split("train").load_images(settings.model.image_size)
        train = extract(extractor, images, cache=layout.features / "cache")
        scale = Scale.fit(train)
        return cls(extractor, scale, fit_kernel(scale(train)))


# -- pools on disk -----------------------------------------------------------------------------

Maker = Callable[[range], dict[str, Any]]  # numbers of subjects to named arrays with a row each


def fill_pool(folder: Path, maker: Maker, size: int, title: str) -> dict[str, Any]:
    """Arrays of a pool of ``size`` rows, made chunk by chunk where they are missing.

    A row depends on its number alone, so a larger pool begins with the same rows.
    """
    starts = range(0, size, CHUNK)
    todo = [start for start in starts if not (folder / f"{start:06d}.npz").is_file()]
    jobs = (delayed(_make_chunk)(folder, maker, start) for start in todo)
    side_by_side(jobs, len(todo), f"{title}, chunks of {CHUNK}")
    parts = []
    for start in starts:
        with np.load(folder / f"{start:06d}.npz", allow_pickle=False) as found:
            parts.append(dict(found))
    return {name: np.concatenate([part[name] for part in parts])[:size] for name in parts[0]}


def _make_chunk(folder: Path, maker: Maker, start: int) -> None:
    arrays = maker(range(start, start + CHUNK))
    with atomic_file(folder / f"{start:06d}.npz") as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)


# -- truth -------------------------------------------------------------------------------------


def remembered(path: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was measured on a pool; measured once, as all pairs of 20,000 images take minutes."""
    if not path.is_file():
        write_json(path, measure())
    found: dict[str, Any] = read_json(path)
    return found


def pool_kid(kernel: Kernel, real: Floats, generated: Floats) -> Estimate:
    """KID of a whole pool, a row per subject."""
    return kid(kernel, real, generated, pool_groups(np.zeros((len(real), 0), dtype=bool)))[0]


def pool_groups(members: Bools) -> Groups:  # [N, M]
    """A unit per row, all of them and the given groups."""
    plain = group_units(pd.DataFrame({"subject": np.arange(len(members))}), {})
    keys = tuple(("pool", str(m)) for m in range(members.shape[1]))
    return Groups(plain.unit, (*plain.keys, *keys), np.hstack([plain.members, members]))


def truth_row(layer: str, law: str, truth: Estimate) -> dict[str, Any]:
    """A row of the table of truths; the error is the pool's, as a sample from its law."""
    values = (layer, law, truth.n, truth.value, truth.standard_error)
    return dict(zip(TRUTH_COLUMNS, values, strict=True))
