"""The study's downstream classifiers: fitted on a source's images, read on real ones, kept.

A run is a source of training images ("real" or a method), a seed and a classifier's name. Its
folder holds the probabilities of every real test and validation image, so that any metric is
computed again without a network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.audit.classifiers import PREDICTION_COLUMNS
from fairdiff_lib.audit.released import stretched_as_released, turned_as_released
from fairdiff_lib.classify.features import Extractor, make_extractor
from fairdiff_lib.classify.fit import Classifier, fit_classifier
from fairdiff_lib.classify.predictions import (
    Images,
    Labels,
    Levels,
    check_predictions,
    predictions_table,
)
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.disk.files import locked, read_json, read_table, write_json, write_table
from fairdiff_lib.disk.places import Places
from fairdiff_lib.model.sample import load_generated
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import ClassifierConfig, Settings
from fairdiff_lib.train.loop import fixed_threads

REAL = "real"
THREADS = 2  # that the encoder is trained on, on every machine
SPLITS = ("test", "val")  # whose probabilities are kept
ALL = "predictions.csv"  # PREDICTION_COLUMNS and split
MISMATCHED = "predictions-mismatched.csv"  # of test images under fault E6; PREDICTION_COLUMNS


def downstream_runs(settings: Settings) -> list[tuple[str, int, str]]:
    """Every (source, seed, classifier): classifiers in turn, real images before the methods'."""
    sources = [(REAL, seed) for seed in settings.seeds] + settings.runs
    return [(*one, name) for name in settings.classifiers for one in sources]


def read_conditions(cohort: Cohort, source: str) -> Levels:
    """What a source's classifier learns: of generated images only what the prompt names."""
    if source != REAL:
        return cohort.condition_levels
    return {c.name: c.levels for c in cohort.spec.conditions}


def read_predictions(
    settings: Settings,
    layout: Places,
    cohort: Cohort,
    source: str,
    seed: int,
    name: str,
    split: str = "test",
) -> pd.DataFrame:
    """Probabilities of real images by a classifier trained on a source's images.

    The classifier's step and thresholds are chosen on real validation images, which no
    generator saw; the test images are only watched, for the as-released choice of the best test
    epoch. It is fitted where it is missing, and found again where it is not.

    Parameters
    ----------
    source : str
        "real" or a method.
    name : str
        One of ``config.CLASSIFIERS``.
    split : str
        "test" or "val".

    Returns
    -------
    DataFrame
        ``PREDICTION_COLUMNS``.

    Raises
    ------
    InputError
        A level that a split lacks, missing generated images, or a file that was changed.
    """
    folder = layout.classifier(source, seed, name)
    if not is_fitted(folder, cohort):
        _fit(settings, layout, cohort, source, seed, name)
    return read_kept(folder, read_conditions(cohort, source), split)


def is_fitted(folder: Path, cohort: Cohort) -> bool:
    """Whether a run's folder is whole, and of this very data."""
    notes = folder / "run.json"
    return notes.is_file() and read_json(notes)["data_hash"] == cohort.data_hash


def read_kept(folder: Path, levels: Levels, split: str = "test") -> pd.DataFrame:
    """Probabilities that :func:`write_fit` kept of a split's real images: PREDICTION_COLUMNS."""
    found = _read(folder / ALL, (*PREDICTION_COLUMNS, "split"), levels)
    return found.loc[found["split"] == split, list(PREDICTION_COLUMNS)].reset_index(drop=True)


def read_mismatched(
    layout: Places, cohort: Cohort, source: str, seed: int, name: str
) -> pd.DataFrame | None:
    """The same classifier on test images as fault E6 would show them; None for real sources.

    As released the generated images lie turned by -90 degrees beside real ones. A classifier
    of upright generated images that is shown real ones turned by +90 degrees sees the same
    angle between them, so nothing has to be trained again.
    """
    path = layout.classifier(source, seed, name) / MISMATCHED
    if not path.is_file():
        return None
    return _read(path, PREDICTION_COLUMNS, read_conditions(cohort, source))


def read_thresholds(layout: Places, source: str, seed: int, name: str) -> dict[str, float]:
    """Thresholds that validation gave, by condition of two levels."""
    return kept_thresholds(layout.classifier(source, seed, name))


def kept_thresholds(folder: Path) -> dict[str, float]:
    """The same, of a run's folder."""
    cuts = read_json(folder / "run.json")["thresholds"]
    return {condition: cut for condition, cut in cuts.items() if cut is not None}


def read_watched(layout: Places, source: str, seed: int, name: str) -> pd.DataFrame:
    """What the classifier did on the test images at each look."""
    return read_table(layout.classifier(source, seed, name) / "watched.csv")


def cost_table(settings: Settings, layout: Places) -> pd.DataFrame:
    """Training seconds and steps of every fitted classifier: source, seed, classifier, ..."""
    rows = []
    for source, seed, name in downstream_runs(settings):
        run = read_json(layout.classifier(source, seed, name) / "run.json")
        own = {key: run[key] for key in ("steps", "selected_step", "seconds")}
        label = settings.classifier(name).name
        rows.append({"source": source, "seed": seed, "classifier": label, **own})
    return pd.DataFrame(rows)


def _read(path: Path, columns: tuple[str, ...], levels: Levels) -> pd.DataFrame:
    found = read_table(path, columns, dtype={"image": str, "subject": str})
    check_predictions(path, found, levels)
    return found


# -- fitting ---------------------------------------------------------------------------------


def check_splits(cohort: Cohort, levels: Levels) -> None:
    """Refuse a condition's level that a split lacks, naming all three.

    Raises
    ------
    InputError
        Without it in validation nothing can be chosen; without it in test, no AUC be measured.
    """
    for split in ("train", "val", "test"):
        table = cohort.included().split(split).table
        for condition, names in levels.items():
            missing = [name for name in names if not (table[condition] == name).any()]
            if missing:
                raise InputError(
                    f"{cohort.root}: the {split} split has no {condition} {', '.join(missing)}; "
                    "expected at least one image of every level"
                )


def label_codes(cohort: Cohort, levels: Levels) -> Labels:
    """Level index of each row per condition, int64 [N, C]."""
    named = [c.name in levels for c in cohort.spec.conditions]
    return cohort.condition_codes()[:, named]


def real_images(part: Cohort, size: int, preparation: str) -> Images:
    """Real images as a classifier is shown them."""
    if preparation == "matched":
        return part.load_images(size)
    return stretched_as_released(part.load_images(size, squash=True))


def training_images(
    settings: Settings,
    layout: Places,
    part: Cohort,
    source: str,
    seed: int,
    preparation: str,
    folder: str = "train",
) -> Images:
    """A source's images for rows: real ones, or those generated for them, by the folder's name."""
    if source == REAL:
        return real_images(part, settings.model.image_size, preparation)
    names = part.table["image"].tolist()
    images = load_generated(layout.generated(source, seed), folder, names)
    return images if preparation == "matched" else turned_as_released(images)


@dataclass(frozen=True)
class Judges:
    """Real images that choose a classifier's step and thresholds, and those it is tested on.

    Attributes
    ----------
    parts : dict of str to Cohort
        "val" and "test".
    images : dict of str to uint8 [N, 3, S, S]
        Of both, prepared as the classifier's settings say.
    """

    parts: dict[str, Cohort]
    images: dict[str, Images]


def read_judges(settings: Settings, cohort: Cohort, preparation: str) -> Judges:
    """Real validation and test images, read once for as many fits as there are."""
    parts = {split: cohort.included().split(split) for split in SPLITS}
    size = settings.model.image_size
    return Judges(parts, {k: real_images(one, size, preparation) for k, one in parts.items()})


def fit_judged(
    images: Images,
    labels: Labels,
    levels: Levels,
    judges: Judges,
    config: ClassifierConfig,
    seed: int,
    folder: Path,
    initial: Classifier | None = None,
) -> Classifier:
    """``classify.fit_classifier``, chosen on real validation images, real test images watched."""
    seen = {split: (judges.images[split], label_codes(judges.parts[split], levels))
            for split in SPLITS}  # fmt: skip
    return fit_classifier(
        images, labels, levels, *seen["val"], config, seed, folder, seen["test"], initial
    )


def write_fit(
    folder: Path, cohort: Cohort, classifier: Classifier, judges: Judges, **notes: Any
) -> None:
    """Write a run's folder; run.json, with the notes, last: it says that all is there."""
    classifier.save(folder / "classifier")
    write_table(classifier.watched, folder / "watched.csv")
    parts = [_predict(classifier, judges.images[k], judges.parts[k]).assign(split=k)
             for k in SPLITS]  # fmt: skip
    write_table(pd.concat(parts, ignore_index=True), folder / ALL)
    cuts = {k: None if np.isnan(v) else v for k, v in classifier.thresholds.items()}
    own = {
        "data_hash": cohort.data_hash,
        "classifier": classifier.name,
        "thresholds": cuts,
        "steps": classifier.config.loop.steps,
        "selected_step": classifier.selected_step,
        "seconds": classifier.seconds,
    }
    write_json(folder / "run.json", own | notes)


def _fit(
    settings: Settings, layout: Places, cohort: Cohort, source: str, seed: int, name: str
) -> None:
    """Fit a source's classifier and write its folder."""
    config, folder = settings.classifier(name), layout.classifier(source, seed, name)
    levels = read_conditions(cohort, source)
    check_splits(cohort, levels)
    train, judges = (
        cohort.included().split("train"),
        read_judges(settings, cohort, config.preparation),
    )
    images = training_images(settings, layout, train, source, seed, config.preparation)
    classifier = fit_judged(
        images, label_codes(train, levels), levels, judges, config, seed, folder / "work"
    )
    if source != REAL and config.preparation == "matched":
        test = judges.parts["test"]
        faulty = turned_as_released(
            real_images(test, settings.model.image_size, "mismatched_as_released"), 1
        )
        write_table(_predict(classifier, faulty, test), folder / MISMATCHED)
    write_fit(folder, cohort, classifier, judges)


def _predict(classifier: Classifier, images: Images, part: Cohort) -> pd.DataFrame:
    return predictions_table(
        classifier.predict(images),
        classifier.levels,
        part.table["image"].tolist(),
        part.table["subject"].tolist(),
        label_codes(part, classifier.levels),
    )


# -- the feature encoder ---------------------------------------------------------------------


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


def _train_encoder(settings: Settings, layout: Places, cohort: Cohort, heads: Levels) -> Classifier:
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
