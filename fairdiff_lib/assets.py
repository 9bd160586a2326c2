"""What the notebooks share: the cohort, the feature encoder, generated images, prompt galleries.

Each is made when it is missing and found again when it is there, so that a notebook
runs alone as well as in the graph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter

from fairdiff_lib import diffusion
from fairdiff_lib.classify import Classifier, fit_classifier
from fairdiff_lib.cohorts import Cohort, read_cohort, spec_for
from fairdiff_lib.config import InputError, Settings, as_dict
from fairdiff_lib.features import Extractor, make_extractor
from fairdiff_lib.gates import reconstruction_r2
from fairdiff_lib.simulate import measure_cup_disc_ratio, read_truth, simulate_fairgenmed
from fairdiff_lib.store import (
    Layout,
    atomic_file,
    is_simulated,
    read_json,
    read_table,
    write_json,
    write_table,
)

SAMPLES = 5  # per row of the prompt gallery
BLUR = 1 / 32  # standard deviation of the blurred control, fraction of the image's side


# -- the cohort ------------------------------------------------------------------------------


def ensure_data(settings: Settings, layout: Layout) -> Path:
    """Folder of the dataset; a simulated one is written if it isn't there.

    Raises
    ------
    InputError
        Real data that are missing: where they were expected.
    """
    if layout.data.is_dir():
        return layout.data
    if not is_simulated(settings.dataset):
        raise InputError(
            f"{layout.data}: folder not found; put {settings.dataset} there or give data_root"
        )
    simulate_fairgenmed(settings.simulator, layout.data)
    return layout.data


def load_cohort(settings: Settings, layout: Layout) -> Cohort:
    """The cohort, read and hashed once; later calls trust it while no file has changed.

    Raises
    ------
    InputError
        As ``cohorts.read_cohort`` and :func:`ensure_data`.
    """
    root = ensure_data(settings, layout)
    mark = folder_mark(root)
    notes = layout.cohort / "cohort.json"
    if notes.is_file() and read_json(notes).get("mark") == mark:
        table = read_table(layout.cohort / "cohort.csv", dtype=str, keep_default_na=False)
        return Cohort(spec_for(settings.dataset), table, root, read_json(notes)["data_hash"])
    cohort = read_cohort(settings.dataset, root)
    write_table(cohort.table, layout.cohort / "cohort.csv", None)
    write_json(notes, {"data_hash": cohort.data_hash, "mark": mark})
    return cohort


def folder_mark(root: Path) -> str:
    """Digest of names, sizes and times of the files below a folder: cheap, for this machine."""
    total = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        about = path.stat()
        total.update(f"{path.relative_to(root)}|{about.st_size}|{about.st_mtime_ns}\n".encode())
    return total.hexdigest()


def planted_table(settings: Settings) -> pd.DataFrame:
    """The simulator's settings, one per row; no row for a real dataset."""
    values = as_dict(settings.simulator) if is_simulated(settings.dataset) else {}
    return pd.DataFrame({"setting": list(values), "value": list(values.values())})


def sample_images(cohort: Cohort, settings: Settings) -> tuple[np.ndarray, list[str]]:
    """A test image per demographic level, uint8 [G, 3, H, W], and the levels' names."""
    rows, names = group_examples(cohort)
    test = cohort.included().split("test")
    return test.load_images(settings.model.image_size, rows), names


def ruler_table(cohort: Cohort, settings: Settings) -> pd.DataFrame:
    """R^2 of the cup-disc ratio measured on original test images; NaN without a truth."""
    test, row = cohort.included().split("test"), {"images": 0, "lost": 0, "value": np.nan}
    if is_simulated(settings.dataset):
        truth = read_truth(cohort.root).loc[test.table["image"], "cup_disc_ratio"]
        measured = measure_cup_disc_ratio(test.load_images(settings.model.image_size))
        value = reconstruction_r2(measured, truth.to_numpy(dtype=np.float64))
        row = {"images": len(test), "lost": int(np.isnan(measured).sum()), "value": value}
    return pd.DataFrame([{"measure": "R^2 of the cup-disc ratio", **row}])


def all_levels(cohort: Cohort) -> dict[str, tuple[str, ...]]:
    """Attributes and conditions with their level names, in the spec's order."""
    return {field.name: field.levels for field in cohort.spec.fields}


def attribute_levels(cohort: Cohort) -> dict[str, tuple[str, ...]]:
    """Demographic attributes with their level names."""
    return {a.name: a.levels for a in cohort.spec.attributes}


def condition_levels(cohort: Cohort) -> dict[str, tuple[str, ...]]:
    """Conditions with their level names."""
    return {c.name: c.levels for c in cohort.spec.conditions}


# -- the encoder -----------------------------------------------------------------------------


def load_encoder(settings: Settings, layout: Layout, cohort: Cohort) -> Classifier:
    """The feature encoder, trained once on the real training split for its conditions.

    One and the same for every method and seed. It never sees test images.
    """
    folder, notes = layout.features / "encoder", layout.features / "encoder-data.json"
    heads = condition_levels(cohort)
    trained = notes.is_file() and read_json(notes)["data_hash"] == cohort.data_hash
    if trained and (folder / "config.json").is_file():
        return Classifier.load(folder, settings.encoder, heads)
    train, val = cohort.included().split("train"), cohort.included().split("val")
    size = settings.model.image_size
    encoder = fit_classifier(
        train.load_images(size),
        train.condition_codes(),
        heads,
        val.load_images(size),
        val.condition_codes(),
        settings.encoder,
        seed=0,
        folder=layout.features / "work",
    )
    encoder.save(folder)
    write_json(notes, {"data_hash": cohort.data_hash})
    return encoder


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


# -- prompt galleries ------------------------------------------------------------------------


def usual_profile(cohort: Cohort) -> dict[str, str]:
    """The commonest level of every attribute in training, the first level of every condition."""
    train = cohort.included().split("train").table
    profile = {a.name: str(train[a.name].mode().iloc[0]) for a in cohort.spec.attributes}
    return profile | {c.name: c.levels[0] for c in cohort.spec.conditions}


def gallery_rows(cohort: Cohort) -> list[tuple[str, str]]:
    """(condition, level) of each gallery row: the conditions that the prompt mentions."""
    named = [c for c in cohort.spec.conditions if f"{{{c.name}}}" in cohort.spec.template]
    return [(condition.name, level) for condition in named for level in condition.levels]


def gallery_images(
    settings: Settings, layout: Layout, cohort: Cohort, method: str, seed: int
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
    pipeline = diffusion.load_pipeline(layout.run(method, seed) / "pipeline")
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


def group_examples(cohort: Cohort) -> tuple[np.ndarray, list[str]]:
    """A test row per attribute level, as alike in everything else as the test split allows.

    Returns
    -------
    rows : int64 [G]
        Positions in ``cohort.included().split("test")``.
    names : list of str
        The level that each row stands for.
    """
    table = cohort.included().split("test").table
    profile = usual_profile(cohort)
    alike = (table[list(profile)] == pd.Series(profile)).to_numpy().sum(axis=1)  # [N]
    rows, names = [], []
    for attribute in cohort.spec.attributes:
        for level in attribute.levels:
            own = (table[attribute.name] == level).to_numpy()
            rows.append(int(np.where(own, alike, -1).argmax()))
            names.append(level)
    return np.array(rows, dtype=np.int64), names
