"""A generator that serves a group worse, planted in the way that it happens: by training images.

After any simulator has drawn its patients, one group has fewer training images, some of which show
another patient than their labels say, and all of which may be coarse. Everybody's validation and
test images stay as they were drawn. By default the group is camera B's: who was photographed by
which of two cameras is as good as drawn by lot, so that without a plant nothing but the prompt
tells the two apart.

Labels stay as they are in the original layout; what has no place there stands in ``truth.csv``:
camera, collected (0: left out of training), picture (the image whose picture a file holds).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from fairdiff_lib.data.cohort import Attribute, CohortSpec, Reader
from fairdiff_lib.data.reading import Source, read_truth
from fairdiff_lib.disk.files import atomic_file, write_table
from fairdiff_lib.settings.options import Population

CAMERAS = Attribute("camera", ("A", "B"))
NOT_COLLECTED = "not collected: planted"
_QUALITY = 92  # of JPEG, as of the simulators


def with_cameras(spec: CohortSpec) -> CohortSpec:
    """The spec with the camera as an attribute, whose letter begins the prompt.

    The text encoder reads from left to right and stays as it is in a fine-tuning: a letter at the
    end would change one of its forty features, and a U-Net didn't learn it in 150 steps. Words that
    a shipped base has not learnt fall into many pieces, and its prompts have few places left.
    """
    template = f"{{camera}}: {spec.template}"
    return replace(spec, attributes=(*spec.attributes, CAMERAS), template=template)


def plant(config: Population, reader: Reader, root: Path) -> None:
    """Worsen the training images of the group that ``config.plant`` names; ``root`` is drawn."""
    own, (attribute, level) = config.plant, config.served_worse or ("", "")
    table, truth = reader(root, "default", 0).table, read_truth(root)
    camera = np.where(_lots(table["subject"], config.seed, "camera") < 0.5, *CAMERAS.levels)
    if config.has_cameras:
        table = table.assign(camera=camera)
        truth.loc[table["image"], "camera"] = camera
    group = table[(table["split"] == "train") & (table[attribute] == level)]
    kept = _lots(group["subject"], config.seed, "collected") < own.kept
    wrong = _lots(group["subject"], config.seed, "mislabelled") < own.mislabelled
    truth["collected"], truth["picture"] = 1, truth.index
    truth.loc[group.loc[~kept, "image"], "collected"] = 0
    others = group[kept & wrong]
    truth.loc[others["image"], "picture"] = np.roll(others["image"], 1)
    pictures = [(root / path).read_bytes() for path in others["path"]]
    for path, picture in zip(others["path"], np.roll(np.array(pictures, object), 1), strict=True):
        (root / path).write_bytes(picture)
    for path in group.loc[kept, "path"] if own.height else ():
        _coarsen(root / path, own.height)
    write_table(truth.reset_index(), root / "truth.csv")


def _lots(subjects: pd.Series[str], seed: int, what: str) -> NDArray[np.float64]:
    """A number of [0, 1) for every row, by subject and purpose alone: as good as drawn by lot."""
    marks = [hashlib.sha256(f"{seed}|{what}|{name}".encode()).digest() for name in subjects]
    return np.array([int.from_bytes(mark[:6], "big") / 2**48 for mark in marks])


def _coarsen(path: Path, height: int) -> None:
    """Leave a picture the detail of so many pixels of height, at its own size."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    small = picture.resize((round(height * picture.width / picture.height), height),
                           Image.Resampling.BICUBIC)  # fmt: skip
    with atomic_file(path) as temporary:
        small.resize(picture.size, Image.Resampling.BICUBIC).save(
            temporary, "JPEG", quality=_QUALITY
        )


def planted_reader(reader: Reader) -> Reader:
    """The reader, with the cameras, and without the images that were not collected."""

    def read(root: Path, coding: str, split_seed: int) -> Source:
        source, truth = reader(root, coding, split_seed), read_truth(root)
        own = truth.loc[source.table["image"]].reset_index(drop=True)
        left_out = np.where(own["collected"] == 1, "", NOT_COLLECTED)
        given = source.table.get("excluded", pd.Series("", index=source.table.index))
        table = source.table.assign(excluded=given.where(given != "", left_out))
        if "camera" in own:
            table["camera"] = own["camera"].tolist()
        said = f"{source.labels_hash}|{','.join(table.get('camera', []))}|{','.join(left_out)}"
        return Source(table, hashlib.sha256(said.encode()).hexdigest())

    return read
