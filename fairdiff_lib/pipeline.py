"""From what the runs left on disk to the study's tables: one function per notebook.

The notebooks call these, print what they return, and draw it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib import assets, diffusion, imaging, tables, training
from fairdiff_lib.classification import classification_audits, scored
from fairdiff_lib.classify import fit_classifier, predictions_table
from fairdiff_lib.cohorts import Cohort
from fairdiff_lib.config import Settings
from fairdiff_lib.downstream import classification_contrasts, classification_table
from fairdiff_lib.fairness import Audit
from fairdiff_lib.protocol import write_protocol
from fairdiff_lib.seeds import compare_audits
from fairdiff_lib.store import Layout, read_json, read_table, write_json, write_table

# -- 03 and 04: training and generation ------------------------------------------------------


def train(
    settings: Settings, layout: Layout, cohort: Cohort, method: str, seed: int
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Train the base or fine-tune by a method, unless it is done; its history and run.json.

    Parameters
    ----------
    method : str
        ``base``, or a method that starts from it. The base is made where it is missing.
    seed : int
        Not used by the base.
    """
    if not _finished(layout.base, cohort):
        training.train_base(settings, layout, cohort)
    folder = layout.base if method == "base" else layout.run(method, seed)
    if not _finished(folder, cohort):
        training.train_method(settings, layout, cohort, method, seed)
    history = training.read_history([folder]).assign(dataset=settings.dataset)
    return history, read_json(folder / "run.json")


def _finished(folder: Path, cohort: Cohort) -> bool:
    path = folder / "run.json"
    return path.is_file() and read_json(path)["stamp"]["data_hash"] == cohort.data_hash


def generate(
    settings: Settings, layout: Layout, cohort: Cohort, method: str, seed: int
) -> pd.DataFrame:
    """Images for the test and the training prompts, and the prompt gallery.

    The protocol is written first, if it isn't there.

    Returns
    -------
    DataFrame
        split, images, seconds, images_per_second (NaN where they were there already).
    """
    write_protocol(settings, layout, cohort)
    rows = []
    for split in ("test", "train"):
        own, started = cohort.included().split(split), time.perf_counter()
        count = diffusion.generate(
            settings, layout, own.table["image"].tolist(), own.table["prompt"].tolist(),
            method, seed, split,
        )  # fmt: skip
        seconds = time.perf_counter() - started
        rows.append({"split": split, "images": len(own), "new": count, "seconds": seconds})
    imaging.gallery_images(settings, layout, cohort, method, seed)
    return pd.DataFrame(rows)


# -- 04 and 05: what people look at ----------------------------------------------------------


def collect_examples(
    settings: Settings, layout: Layout, cohort: Cohort, seed: int, methods: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """F2's images by source ("real" and the methods), and the names of its columns."""
    rows, names = assets.group_examples(cohort)
    test = cohort.included().split("test")
    images = {"real": test.load_images(settings.model.image_size, rows)}
    for method in methods:
        made = diffusion.load_generated(layout.generated(method, seed), "test")
        images[method] = made[rows]
    return images, names


def collect_gallery(
    settings: Settings, layout: Layout, cohort: Cohort, seed: int, methods: Sequence[str]
) -> dict[str, Any]:
    """F6's images by method; the rows are ``assets.gallery_rows``."""
    return {
        method: imaging.gallery_images(settings, layout, cohort, method, seed) for method in methods
    }


# -- 06: what the optimiser did --------------------------------------------------------------


def collect_perturbation(
    named: Sequence[tuple[str, Path]], dataset: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """History of every run, and a row per run on its cost.

    Parameters
    ----------
    named : sequence of (label, folder)
        Finished runs; a label stands as their method.
    dataset : str

    Returns
    -------
    history : DataFrame
        dataset, method, seed, stage, step, quantity, attribute, level, value.
    runs : DataFrame
        dataset, method, seed, steps, seconds_per_step, optimiser_share, proposals,
        final_loss, peak_memory_gib.
    """
    parts, rows = [], []
    for label, folder in named:
        run = read_json(folder / "run.json")
        own = training.read_history([folder]).assign(method=label, dataset=dataset)
        parts.append(own)
        whole = own[own["attribute"] == ""].sort_values("step")
        proposals = whole.loc[whole["quantity"] == "acquisition", "value"]
        rows.append(
            {
                "dataset": dataset,
                "method": label,
                "seed": run["seed"],
                "steps": int(own["step"].max()),
                "seconds_per_step": run["seconds_per_step"],
                "optimiser_share": run["optimiser_share"],
                "proposals": int(np.isfinite(proposals).sum()),
                "final_loss": float(whole.loc[whole["quantity"] == "loss", "value"].iloc[-1]),
                "peak_memory_gib": run["peak_memory_gib"],
            }
        )
    return pd.concat(parts, ignore_index=True), pd.DataFrame(rows)


def method_runs(settings: Settings, layout: Layout) -> list[tuple[str, Path]]:
    """(method, folder) of every run of a study."""
    return [(method, layout.run(method, seed)) for method, seed in assets.runs_of(settings)]


# -- 07: downstream --------------------------------------------------------------------------


def collect_downstream(settings: Settings, layout: Layout, cohort: Cohort) -> pd.DataFrame:
    """Classifiers trained on real or generated images, tested on real images.

    Returns
    -------
    DataFrame
        dataset, source ("real" or a method), seeds, classifier, condition, attribute,
        level, metric, n, value, low, high, note.
    """
    parts = []
    for source, seed in sources(settings):
        predictions, cuts = _predicted(settings, layout, cohort, source, seed)
        labels = {"dataset": settings.dataset, "source": source, "seed": seed}
        parts.append(
            classification_table(
                predictions,
                cohort.included().split("test").table,
                assets.attribute_levels(cohort),
                labels={**labels, "classifier": settings.classifier.name},
                watched=_watched(layout, source, seed),
                thresholds=cuts,
                confidence=settings.audit.confidence,
                bootstrap=settings.audit.bootstrap,
            )
        )
    table = tables.over_seeds(pd.concat(parts, ignore_index=True), settings.audit.confidence)
    return tables.with_notes(table, tables.gate_notes(layout))


def sources(settings: Settings) -> list[tuple[str, int]]:
    """Every (source of training images, seed): real images, then the methods'."""
    return [("real", seed) for seed in settings.seeds] + assets.runs_of(settings)


def _predicted(
    settings: Settings, layout: Layout, cohort: Cohort, source: str, seed: int
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Predictions of a source's classifier, and the thresholds that it was given."""
    predictions = predict_downstream(settings, layout, cohort, source, seed)
    cuts = read_json(layout.classifier(source, seed) / "run.json")["thresholds"]
    return predictions, {name: cut for name, cut in cuts.items() if cut is not None}


def _watched(layout: Layout, source: str, seed: int) -> pd.DataFrame | None:
    """What a classifier did on the test images at each look; None for one fitted without."""
    path = layout.classifier(source, seed) / "watched.csv"
    return read_table(path) if path.is_file() else None


def downstream_contrasts(settings: Settings, layout: Layout, cohort: Cohort) -> pd.DataFrame:
    """Differences between levels in what the classifiers do, per run; all exploratory.

    Returns
    -------
    DataFrame
        dataset, source, seed, condition, then ``contrasts.CONTRAST_COLUMNS``.
    """
    parts = []
    for source, seed in sources(settings):
        predictions, cuts = _predicted(settings, layout, cohort, source, seed)
        parts.append(
            classification_contrasts(
                predictions,
                cohort.included().split("test").table,
                assets.attribute_levels(cohort),
                labels={"dataset": settings.dataset, "source": source, "seed": seed},
                thresholds=cuts,
                confidence=settings.audit.confidence,
                secondary_below=settings.audit.secondary_below,
            )
        )
    table = pd.concat(parts, ignore_index=True)
    return tables.with_notes(table, tables.gate_notes(layout))


def downstream_changes(settings: Settings, layout: Layout, cohort: Cohort) -> pd.DataFrame:
    """AUC and accuracy of every method's classifiers against the baseline's, paired by seed.

    Returns
    -------
    DataFrame
        dataset, condition, then ``seeds.CHANGE_COLUMNS``.
    """
    test, attributes = cohort.included().split("test").table, assets.attribute_levels(cohort)
    audits: dict[tuple[str, str], dict[tuple[str, int], Audit]] = {}
    for method, seed in assets.runs_of(settings):
        predictions, cuts = _predicted(settings, layout, cohort, method, seed)
        for condition in dict.fromkeys(predictions["condition"]):
            data = scored(predictions, test, condition, attributes, cuts.get(condition, 0.5))
            found = classification_audits(data, attributes, names=("auc", "accuracy"), bootstrap=0)
            for metric, own in found.items():
                audits.setdefault((condition, metric), {})[method, seed] = own
    confidence = settings.audit.confidence
    parts = [
        compare_audits(own, confidence=confidence).assign(condition=condition)
        for (condition, _), own in audits.items()
    ]
    return pd.concat(parts, ignore_index=True).assign(dataset=settings.dataset)


def predict_downstream(
    settings: Settings, layout: Layout, cohort: Cohort, source: str, seed: int
) -> pd.DataFrame:
    """Predictions of the real test images by a classifier trained on a source's images.

    The classifier's step and thresholds are chosen on real validation images, which no
    generator saw; the test images are only watched, for the as-released choice of the best test
    epoch. Found again where they were made before.
    """
    folder = layout.classifier(source, seed)
    notes = folder / "run.json"
    if notes.is_file() and read_json(notes)["data_hash"] == cohort.data_hash:
        return read_table(folder / "predictions.csv", dtype={"image": str, "subject": str})
    kept, size = cohort.included(), settings.model.image_size
    train, val, test = (kept.split(name) for name in ("train", "val", "test"))
    test_images = test.load_images(size)
    images = (
        train.load_images(size)
        if source == "real"
        else diffusion.load_generated(layout.generated(source, seed), "train")
    )
    classifier = fit_classifier(
        images,
        assets.prompted_codes(train),
        assets.condition_levels(cohort),
        val.load_images(size),
        assets.prompted_codes(val),
        settings.classifier,
        seed=seed,
        folder=folder / "work",
        watch=(test_images, assets.prompted_codes(test)),
    )
    classifier.save(folder / "classifier")
    write_table(classifier.watched, folder / "watched.csv", None)
    predictions = predictions_table(
        classifier.predict(test_images),
        classifier.levels,
        test.table["image"].tolist(),
        test.table["subject"].tolist(),
        assets.prompted_codes(test),
    )
    write_table(predictions, folder / "predictions.csv", None)
    cuts = {k: None if np.isnan(v) else v for k, v in classifier.thresholds.items()}
    write_json(notes, {"data_hash": cohort.data_hash, "thresholds": cuts})
    return predictions
