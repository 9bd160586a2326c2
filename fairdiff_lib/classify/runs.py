"""The study's classifiers: fitted on a source's images, read on real ones, kept; and its reader.

A run is a source of training images ("real" or a method), a seed and a classifier's name. Its
folder holds the probabilities of every real test and validation image, so that any metric is
computed again without a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.audit.classifiers import PREDICTION_COLUMNS, Scored, scored
from fairdiff_lib.audit.released import stretched_as_released, turned_as_released
from fairdiff_lib.classify.features import Extractor, Space, make_extractor
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
from fairdiff_lib.disk.tables import gate_notes
from fairdiff_lib.model.device import fixed_threads
from fairdiff_lib.model.sample import load_generated
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.names import classifier_name, images_of, name_of
from fairdiff_lib.settings.options import REAL as REAL
from fairdiff_lib.settings.options import ClassifierConfig
from fairdiff_lib.study import Study

SPLITS = ("test", "val")  # whose probabilities are kept
ALL = "predictions.csv"  # PREDICTION_COLUMNS and split
MISMATCHED = "predictions-mismatched.csv"  # of test images under fault E6; PREDICTION_COLUMNS


# -- what was fitted, read again -------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """What a source's classifier says of real images."""

    dataset: str
    source: str  # "real" or a method
    seed: int
    classifier: str  # name of the configuration that ran
    test: pd.DataFrame  # PREDICTION_COLUMNS
    validation: pd.DataFrame  # PREDICTION_COLUMNS
    cuts: dict[str, float]  # threshold that validation gave, by condition of two levels
    watched: pd.DataFrame  # what it did on the test images at each look
    # the same on test images as fault E6 would show them; None for real sources. As released the
    # generated images lie turned by -90 degrees beside real ones. A classifier of upright generated
    # images that is shown real ones turned by +90 degrees sees the same angle between them, so
    # nothing has to be trained again
    mismatched: pd.DataFrame | None

    def labels(self, source: str = "method") -> dict[str, Any]:
        """First columns of this run's rows; ``source`` names the second."""
        own = {"dataset": self.dataset, source: self.source, "seed": self.seed}
        return {**own, "classifier": self.classifier}

    def rows(self, table: pd.DataFrame, condition: str) -> pd.DataFrame:
        """The table's rows that are this run's, of a condition."""
        source = "source" if "source" in table else "method"
        own = {source: self.source, "seeds": str(self.seed), "classifier": self.classifier}
        wanted = pd.Series({**own, "condition": condition})
        return table[(table[list(wanted.index)] == wanted).all(axis=1)]

    def alike(self, cohort: Cohort) -> list[str]:
        """A line for every condition of which all test images got the same probability."""
        levels = {k: v for k, v in cohort.condition_levels.items() if self.scored(cohort, k).alike}
        return [
            f"{classifier_name(self.classifier)}, trained on {images_of(self.source)} (seed "
            f"{self.seed}), gives every test image the same probability of {name_of(k).lower()}: "
            "it tells nobody apart, and its calibration slope can't be estimated"
            for k in levels
        ]

    def scored(self, cohort: Cohort, condition: str, split: str = "test") -> Scored:
        """Predictions of a condition on test or validation ("val") images, as arrays."""
        own, table = {"test": self.test, "val": self.validation}[split], cohort.included()
        cut, attributes = self.cuts.get(condition, 0.5), cohort.attribute_levels
        return scored(own, table.split(split).table, condition, attributes, cut)


def notes_of(study: Study, runs: Sequence[Run]) -> list[str]:
    """What a reader of these classifiers' figures has to know: failed gates, who learnt nothing."""
    return [*gate_notes(study.places), *(line for run in runs for line in run.alike(study.cohort))]


def read_runs(study: Study) -> list[Run]:
    """Every classifier of the study."""
    return [read_run(study, *one) for one in study.settings.fits]


def read_run(study: Study, source: str, seed: int, name: str) -> Run:
    """A source's classifier on real images: fitted where it is missing, found again where not.

    Its step and thresholds are chosen on real validation images, which no generator saw; the
    test images are only watched, for the as-released choice of the best test epoch. ``name`` is one
    of ``options.CLASSIFIERS``.
    """
    folder = study.places.classifier(source, seed, name)
    if not is_fitted(folder, study.cohort):
        _fit(study, source, seed, name)
    levels, other = read_conditions(study.cohort, source), folder / MISMATCHED
    test, validation = (read_kept(folder, levels, split) for split in SPLITS)
    return Run(
        study.settings.dataset,
        source,
        seed,
        study.settings.classifier(name).name,
        test,
        validation,
        kept_thresholds(folder),
        read_table(folder / "watched.csv"),
        _read(other, PREDICTION_COLUMNS, levels) if other.is_file() else None,
    )


def read_conditions(cohort: Cohort, source: str) -> Levels:
    """What a source's classifier learns: of generated images only what the prompt names."""
    if source != REAL:
        return cohort.condition_levels
    return {c.name: c.levels for c in cohort.spec.conditions}


def is_fitted(folder: Path, cohort: Cohort) -> bool:
    """Whether a run's folder is whole, and of this very data."""
    notes = folder / "run.json"
    return notes.is_file() and read_json(notes)["data_hash"] == cohort.data_hash


def read_kept(folder: Path, levels: Levels, split: str = "test") -> pd.DataFrame:
    """Probabilities that :func:`write_fit` kept of a split's real images: PREDICTION_COLUMNS."""
    found = _read(folder / ALL, (*PREDICTION_COLUMNS, "split"), levels)
    return found.loc[found["split"] == split, list(PREDICTION_COLUMNS)].reset_index(drop=True)


def kept_thresholds(folder: Path) -> dict[str, float]:
    """Thresholds that validation gave a run, by condition of two levels."""
    cuts = read_json(folder / "run.json")["thresholds"]
    return {condition: cut for condition, cut in cuts.items() if cut is not None}


def cost_table(study: Study) -> pd.DataFrame:
    """Training seconds and steps of every fitted classifier: source, seed, classifier, ..."""
    rows = []
    for source, seed, name in study.settings.fits:
        run = read_json(study.places.classifier(source, seed, name) / "run.json")
        own = {key: run[key] for key in ("steps", "selected_step", "seconds")}
        label = study.settings.classifier(name).name
        rows.append({"source": source, "seed": seed, "classifier": label, **own})
    return pd.DataFrame(rows)


def _read(path: Path, columns: tuple[str, ...], levels: Levels) -> pd.DataFrame:
    found = read_table(path, columns, dtype={"image": str, "subject": str})
    check_predictions(path, found, levels)
    return found


# -- what a classifier is shown --------------------------------------------------------------


def check_splits(cohort: Cohort, levels: Levels) -> None:
    """Refuse a condition's level that a split lacks, naming all three.

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
    study: Study, part: Cohort, source: str, seed: int, preparation: str, folder: str = "train"
) -> Images:
    """A source's images for rows: real ones, or those generated for them, by the folder's name."""
    if source == REAL:
        return real_images(part, study.settings.model.image_size, preparation)
    names = part.table["image"].tolist()
    images = load_generated(study.places.generated(source, seed), folder, names)
    return images if preparation == "matched" else turned_as_released(images)


@dataclass(frozen=True)
class HeldOut:
    """Real images that choose a classifier's step and thresholds, and those it is tested on."""

    parts: dict[str, Cohort]  # "val" and "test"
    images: dict[str, Images]  # of both, prepared as the classifier's settings say


def read_held_out(study: Study, preparation: str) -> HeldOut:
    """Real validation and test images, read once for as many fits as there are."""
    parts = {split: study.cohort.included().split(split) for split in SPLITS}
    size = study.settings.model.image_size
    return HeldOut(parts, {k: real_images(one, size, preparation) for k, one in parts.items()})


# -- fitting ---------------------------------------------------------------------------------


def fit_on(
    images: Images,
    labels: Labels,
    levels: Levels,
    held: HeldOut,
    config: ClassifierConfig,
    seed: int,
    folder: Path,
    initial: Classifier | None = None,
) -> Classifier:
    """``fit.fit_classifier``, chosen on real validation images, real test images watched."""
    seen = {split: (held.images[split], label_codes(held.parts[split], levels)) for split in SPLITS}
    return fit_classifier(
        images, labels, levels, *seen["val"], config, seed, folder, seen["test"], initial
    )


def write_fit(
    folder: Path, cohort: Cohort, classifier: Classifier, held: HeldOut, **notes: Any
) -> None:
    """Write a run's folder; run.json, with the notes, last: it says that all is there."""
    classifier.save(folder / "classifier")
    write_table(classifier.watched, folder / "watched.csv")
    parts = [_predict(classifier, held.images[k], held.parts[k]).assign(split=k) for k in SPLITS]
    write_table(pd.concat(parts, ignore_index=True), folder / ALL)
    cuts = {k: None if np.isnan(v) else v for k, v in classifier.thresholds.items()}
    own = {
        "data_hash": cohort.data_hash,
        "classifier": classifier.config.name,
        "thresholds": cuts,
        "steps": classifier.config.loop.steps,
        "selected_step": classifier.selected_step,
        "seconds": classifier.seconds,
    }
    write_json(folder / "run.json", own | notes)


def _fit(study: Study, source: str, seed: int, name: str) -> None:
    """Fit a source's classifier and write its folder."""
    config, folder = study.settings.classifier(name), study.places.classifier(source, seed, name)
    cohort, prepared = study.cohort, config.preparation
    levels = read_conditions(cohort, source)
    check_splits(cohort, levels)
    train, held = cohort.included().split("train"), read_held_out(study, prepared)
    images, labels = (
        training_images(study, train, source, seed, prepared),
        label_codes(train, levels),
    )
    classifier = fit_on(images, labels, levels, held, config, seed, folder / "work")
    if source != REAL and prepared == "matched":
        test, size = held.parts["test"], study.settings.model.image_size
        faulty = turned_as_released(real_images(test, size, "mismatched_as_released"), 1)
        write_table(_predict(classifier, faulty, test), folder / MISMATCHED)
    write_fit(folder, cohort, classifier, held)


def _predict(
    classifier: Classifier, images: Images, part: Cohort, levels: Levels | None = None
) -> pd.DataFrame:
    levels, found = levels or classifier.levels, classifier.predict(images)
    return predictions_table(
        {name: found[name] for name in levels},
        levels,
        part.table["image"].tolist(),
        part.table["subject"].tolist(),
        label_codes(part, levels),
    )


def read_back(classifier: Classifier, part: Cohort, images: Images) -> pd.DataFrame:
    """What a classifier sees in images of a cohort's rows, real or generated for their prompts.

    ``PREDICTION_COLUMNS`` of the prompted conditions.
    """
    return _predict(classifier, images, part, part.condition_levels)


# -- the reader of findings, and the feature spaces ------------------------------------------


def load_reader(study: Study) -> Classifier:
    """A small classifier of all conditions, trained once on the real training split.

    It reads what images show; no distance between images rests on it. One and the same for every
    method and seed, and it never sees test images. Whichever job needs it first makes it, alone.
    """
    place, cohort = study.places.reader, study.cohort
    folder, notes = place / "classifier", place / "data.json"
    heads = {c.name: c.levels for c in cohort.spec.conditions}

    def found() -> bool:
        trained = notes.is_file() and read_json(notes)["data_hash"] == cohort.data_hash
        return trained and (folder / "config.json").is_file()

    if not found():
        with locked(place / "reader.lock"), fixed_threads(1):
            if not found():
                _train_reader(study, heads).save(folder)
                write_json(notes, {"data_hash": cohort.data_hash})
    return Classifier.load(folder, study.settings.reader, heads)


def _train_reader(study: Study, heads: Levels) -> Classifier:
    kept, size = study.cohort.included(), study.settings.model.image_size
    train, val = (
        (part.load_images(size), part.condition_codes())
        for part in (kept.split("train"), kept.split("val"))
    )
    own = study.settings.reader
    return fit_classifier(*train, heads, *val, own, 0, study.places.reader / "work")


def study_extractors(study: Study) -> list[Extractor]:
    """The primary feature space that the audit's settings name, then the second where there is one.

    Of them only ``encoder`` is trained here: the stages of :func:`load_reader`.
    """
    own = study.settings.audit
    named = {own.features: own.features_revision}
    if own.sensitivity:
        named.setdefault(own.sensitivity, own.sensitivity_revision)
    reader = partial(load_reader, study)
    return [make_extractor(name, revision, reader) for name, revision in named.items()]


def feature_spaces(study: Study, train: Images, test: Images) -> tuple[Space, ...]:
    """:func:`study_extractors` with scale and kernel of real training images."""
    cache = study.places.features
    return tuple(Space.fit(one, cache, train, test) for one in study_extractors(study))
