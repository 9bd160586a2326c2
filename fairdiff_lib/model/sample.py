"""Networks and their images: the feature encoder, generated galleries, the blurred control.

Each is made when it is missing and found again when it is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageFilter

from fairdiff_lib.classify.features import Extractor, make_extractor
from fairdiff_lib.classify.fit import Classifier, fit_classifier
from fairdiff_lib.data.assets import gallery_rows, usual_profile
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.disk.files import atomic_file, locked, read_json, write_json
from fairdiff_lib.disk.places import Places
from fairdiff_lib.model import pipeline as diffusion
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.train.loop import fixed_threads

SAMPLES = 5  # per row of the prompt gallery
THREADS = 2  # that the encoder is trained on, on every machine
BLUR = 1 / 32  # standard deviation of the blurred control, fraction of the image's side


# -- the encoder -----------------------------------------------------------------------------


def load_encoder(settings: Settings, layout: Places, cohort: Cohort) -> Classifier:
    """The feature encoder, trained once on the real training split for its conditions.

    One and the same for every method and seed. It never sees test images. Whichever job needs it
    first makes it, alone and on ``THREADS`` threads: KID follows its rounding.
    """
    folder, notes = layout.features / "encoder", layout.features / "encoder-data.json"
    heads = {c.name: c.levels for c in cohort.spec.conditions}

    def found() -> bool:
        trained = notes.is_file() and read_json(notes)["data_hash"] == cohort.data_hash
        return trained and (folder / "config.json").is_file()

    if not found():
        with locked(layout.features / "encoder.lock"), fixed_threads(THREADS):
            if not found():
                _train_encoder(settings, layout, cohort, heads).save(folder)
                write_json(notes, {"data_hash": cohort.data_hash})
    return Classifier.load(folder, settings.encoder, heads)


def _train_encoder(
    settings: Settings, layout: Places, cohort: Cohort, heads: Mapping[str, Sequence[str]]
) -> Classifier:
    train, val = cohort.included().split("train"), cohort.included().split("val")
    size = settings.model.image_size
    return fit_classifier(
        train.load_images(size),
        train.condition_codes(),
        heads,
        val.load_images(size),
        val.condition_codes(),
        settings.encoder,
        seed=0,
        folder=layout.features / "work",
    )


def load_extractor(settings: Settings, encoder: Classifier) -> Extractor:
    """The feature space that the audit's settings name."""
    return make_extractor(settings.audit.features, settings.audit.features_revision, encoder)


def blurred(images: np.ndarray) -> np.ndarray:
    """Images after a Gaussian blur: a control that must score worse.  # uint8 [N, 3, H, W]"""
    reach = BLUR * images.shape[-1]
    done = [
        np.asarray(Image.fromarray(np.moveaxis(x, 0, -1)).filter(ImageFilter.GaussianBlur(reach)))
        for x in images
    ]
    return np.moveaxis(np.stack(done), -1, 1)


def gallery_images(
    settings: Settings, layout: Places, cohort: Cohort, method: str, seed: int
) -> np.ndarray:
    """Prompt gallery of a run: one condition changes at a time, a column keeps its noise.

    Returns
    -------
    uint8 [R, SAMPLES, 3, H, W]
        In the order of :func:`gallery_rows`.
    """
    path = layout.generated(method, seed) / "gallery.npy"
    if path.is_file():
        found: np.ndarray = np.load(path, allow_pickle=False)
        return found
    profile, rows = usual_profile(cohort), gallery_rows(cohort)
    prompts = [cohort.spec.prompt(profile | {name: level}) for name, level in rows]
    seeds = [
        diffusion.sample_seed(settings.generation.seed, f"gallery-{j}") for j in range(SAMPLES)
    ]
    pipeline = diffusion.load_run(layout, method, seed)
    images = np.stack([sample_row(pipeline, prompt, seeds, settings) for prompt in prompts])
    with atomic_file(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, images, allow_pickle=False)
    return images


def sample_row(
    pipeline: object, prompt: str, seeds: Sequence[int], settings: Settings
) -> np.ndarray:
    """One image per seed for one prompt.  # uint8 [S, 3, H, W]"""
    own = settings.generation
    return diffusion.sample(
        pipeline,
        [prompt] * len(seeds),
        seeds,
        steps=own.steps,
        guidance=own.guidance,
        scheduler=own.scheduler,
    )
