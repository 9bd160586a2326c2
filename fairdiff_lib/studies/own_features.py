"""Features of a user's own images, and the scale and kernel that are fixed on real ones."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from fairdiff_lib.audit.estimate import Floats
from fairdiff_lib.audit.kid import Kernel, fit_kernel
from fairdiff_lib.classify.features import BATCH, Extractor, Features, Scale, make_extractor
from fairdiff_lib.classify.fit import Classifier, fit_classifier
from fairdiff_lib.data.cohort import load_image
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import load_settings
from fairdiff_lib.studies.own_tables import LEAST_SIDE, OwnImages, OwnSet

DEFAULT_FEATURES = "texture"
LABEL_FREE = {  # without a download: what they are blind to
    "texture": "colour, blur and noise at four scales, not anatomy",
    "random-conv": "colour and coarse texture, hardly blur, and no anatomy",
}
BUILT_IN = {"random-conv": "random"}  # what a user calls it: what ``features`` calls it
MOST_PIXELS = {"texture": 128, "random-conv": 128, "encoder": 64}  # size where none is given
MOST_PIXELS_ELSE = 256  # of pretrained features, which enlarge to their own size
VALIDATION = 5  # one in so many training subjects chooses the encoder's step


@dataclass(frozen=True)
class Measured:
    """Features in units of their spread, and the kernel on them."""

    real: Floats  # [N, D]
    generated: Floats  # [P, D]
    kernel: Kernel
    name: str
    size: int  # pixels


def measure(images: OwnImages, features: str, revision: str, image_size: int) -> Measured:
    """Features of all images; scale and bandwidth from the training reals, else from the reals."""
    size, smallest = image_size, images.smallest_side
    if size == 0:
        size = min(smallest, MOST_PIXELS.get(features, MOST_PIXELS_ELSE))
    if not LEAST_SIDE <= size <= smallest:
        raise InputError(
            f"image size {size}: expected {LEAST_SIDE} to {smallest} pixels, the shortest side "
            "of any image"
        )
    classifier = _fit_encoder(images, size) if features == "encoder" else None
    extractor = make_extractor(BUILT_IN.get(features, features), revision, classifier)
    real, generated = (
        extract_files(extractor, own, size) for own in (images.real, images.generated)
    )
    base = real if images.train is None else extract_files(extractor, images.train, size)
    scale = Scale.fit(base)
    kernel = fit_kernel(scale(base))
    name = features if features in BUILT_IN else extractor.name
    return Measured(scale(real), scale(generated), kernel, name, size)


def extract_files(extractor: Extractor, own: OwnSet, size: int, batch: int = BATCH) -> Features:
    """Features of image files, decoded a batch at a time, so that memory stays bounded.

    Returns
    -------
    float32 [N, D]

    Raises
    ------
    InputError
        A file that is truncated, or features that are not finite, by the image's name.
    """
    found = []
    with tqdm(total=len(own), desc=f"features of {own.csv.name}", disable=None) as bar:
        for start in range(0, len(own), batch):
            files = own.files[start : start + batch]
            found.append(extractor(np.stack([load_image(file, size) for file in files])))
            bar.update(len(files))
    features = np.concatenate(found)
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise InputError(
            f"{own.csv}: features {extractor.name!r} are not finite for {bad.sum()} of {len(own)} "
            f"images, first {own.files[int(bad.argmax())].name}"
        )
    return features


def _fit_encoder(images: OwnImages, size: int) -> Classifier:
    """A small classifier of the condition, from the training reals alone."""
    if images.train is None or not images.conditions:
        raise InputError(
            "features 'encoder': expected --train with real images and --condition, which it "
            "learns to tell apart"
        )
    heads = images.conditions
    ((name, levels),) = heads.items()
    codes = (
        pd.Index(levels).get_indexer(pd.Index(images.train.table[name]))[:, None].astype(np.int64)
    )
    if (codes < 0).any():
        bad = images.train.table[name].iloc[int((codes < 0).argmax())]
        raise InputError(
            f"{images.train.csv}: {name} {bad!r} is not in {images.real.csv}, which has "
            f"{', '.join(levels)}"
        )
    loaded = tqdm(images.train.files, desc="training images", disable=None)
    pixels = np.stack([load_image(file, size) for file in loaded])
    digests = [hashlib.sha256(u.encode()).digest()[0] for u in images.train.table[images.unit]]
    val = np.array(digests) % VALIDATION == 0
    if not val.any() or val.all():
        raise InputError(f"{images.train.csv}: too few {images.unit}s to train an encoder on")
    return fit_classifier(
        pixels[~val], codes[~val], heads, pixels[val], codes[val],
        load_settings("quick").encoder, seed=0,
    )  # fmt: skip
