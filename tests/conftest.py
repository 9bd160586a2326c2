"""What all tests share: no network, one thread per test process, figures without a display."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fairdiff_lib.data.cohort import Attribute, Cohort, CohortSpec, Condition
from fairdiff_lib.data.reading import Source, decode, read_text_csv
from fairdiff_lib.datasets import DATASETS, Dataset
from fairdiff_lib.disk.files import hash_file
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


# -- a data set from outside the library -----------------------------------------------------

TOY = CohortSpec(
    name="toy",
    attributes=(Attribute("site", ("North", "South")), Attribute("hand", ("left", "right"))),
    conditions=(Condition("mark", ("plain", "dotted")),),
    template="Picture of a {hand} hand from the {site}: {mark}",
    phrases={"site": {"North": "north", "South": "south"}},
    split_rule="as shipped: column 'part'",
    modality="pictures of hands",
    primary_condition="mark",
)


def read_toy(root: Path, coding: str, split_seed: int) -> Source:
    """hands.csv (name, owner, part, site, hand, mark) and <name>.png beside it."""
    path = root / "hands.csv"
    frame = read_text_csv(path, ("name", "owner", "part", "site", "hand", "mark"))
    levels = {
        field.name: decode(frame[field.name].tolist(), {x.lower(): x for x in field.levels},
                           path, field.name)
        for field in TOY.fields
    }  # fmt: skip
    rows = {"subject": frame["owner"], "image": frame["name"], "path": frame["name"] + ".png"}
    return Source(pd.DataFrame({**rows, "split": frame["part"], **levels}), hash_file(path))


def write_toy(root: Path, owners: int = 120) -> None:
    """Two thirds of the owners for training; a dotted hand has a bright square."""
    rng, rows = np.random.default_rng(0), []
    root.mkdir(parents=True)
    for n in range(owners):
        dotted, part = n % 2 == 1, ("train", "train", "train", "train", "val", "test")[n // 4 % 6]
        pixels = rng.integers(60, 120, (36, 40, 3)).astype(np.uint8)
        pixels[12:24, 14:26] = 240 if dotted else 20
        Image.fromarray(pixels).save(root / f"h{n}.png")
        mark, site = TOY.levels("mark")[dotted], ("north", "south")[n // 2 % 2]
        row = {"name": f"h{n}", "owner": f"o{n}", "part": part, "site": site, "mark": mark}
        rows.append({**row, "hand": ("left", "right")[n % 3 % 2]})
    pd.DataFrame(rows).to_csv(root / "hands.csv", index=False)


@pytest.fixture(scope="module")
def toy_dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of the data set ``toy``, which one entry in the registry adds for this module.

    ``Study.open("smoke", "toy", data_root=str(toy_dataset), ...)`` opens it.
    """
    root = tmp_path_factory.mktemp("toy") / "data"
    write_toy(root)
    entry = Dataset(
        name="toy",
        title="Toy hands",
        specs={"default": TOY},
        reader=read_toy,
        quality={"tab_toy_quality": "quality by site, hand and mark"},
        downstream={"tab_toy_downstream": "downstream: mark"},
        unit="owners",
        limits="Hands of nobody.",
        draws_splits=False,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, entry.name, entry)
        yield root
