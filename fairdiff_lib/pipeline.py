"""From what the runs left on disk to the study's tables: one function per notebook.

The notebooks call these, print what they return, and draw it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib import assets, diffusion, imaging, tables, training
from fairdiff_lib.classify import Classifier, fit_classifier, predictions_table
from fairdiff_lib.cohorts import Cohort
from fairdiff_lib.config import Settings
from fairdiff_lib.downstream import classification_table
from fairdiff_lib.fairness import contrast_table, equity_rows, kid_audit
from fairdiff_lib.features import Scale, extract
from fairdiff_lib.gates import gates
from fairdiff_lib.kernels import Kernel, fit_kernel
from fairdiff_lib.quality import quality_table
from fairdiff_lib.simulate import measure_cup_disc_ratio, read_truth
from fairdiff_lib.store import Layout, is_simulated, read_json, read_table, write_json, write_table

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

    Returns
    -------
    DataFrame
        split, images, seconds, images_per_second (NaN where they were there already).
    """
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


# -- 05: quality -----------------------------------------------------------------------------


@dataclass(frozen=True)
class QualityResult:
    """Quality by group, and whether the numbers may be believed.

    Attributes
    ----------
    table : DataFrame
        dataset, method, seeds, attribute, level, metric, features, n, value, low, high, note.
    contrasts : DataFrame
        dataset, method, seed, attribute, level, reference, metric, ..., p_adjusted, role, note.
    gates : DataFrame
        dataset, method, seed, gate, n, value, threshold, comparison, passed, note.
    notes : list of str
        A line for each gate that failed.
    """

    table: pd.DataFrame
    contrasts: pd.DataFrame
    gates: pd.DataFrame
    notes: list[str]


@dataclass(frozen=True)
class _Space:
    """Real features, fixed before any generated image is looked at."""

    encoder: Classifier
    extractor: Any
    cache: Path
    scale: Scale
    kernel: Kernel
    train: Any  # [T, D]
    test: Any  # [N, D]
    blurred: Any  # [N, D]


def _space(settings: Settings, layout: Layout, cohort: Cohort) -> _Space:
    encoder = imaging.load_encoder(settings, layout, cohort)
    extractor, cache = imaging.load_extractor(settings, encoder), layout.features / "cache"
    size, kept = settings.model.image_size, cohort.included()
    test_images = kept.split("test").load_images(size)
    train = extract(extractor, kept.split("train").load_images(size), cache=cache)
    scale = Scale.fit(train)
    test = scale(extract(extractor, test_images, cache=cache))
    blur = scale(extract(extractor, imaging.blurred(test_images), cache=cache))
    kernel = fit_kernel(scale(train))
    return _Space(encoder, extractor, cache, scale, kernel, scale(train), test, blur)


def collect_quality(settings: Settings, layout: Layout, cohort: Cohort) -> QualityResult:
    """Quality of every method and seed by attribute and condition, after the gates.

    Parameters
    ----------
    settings, layout, cohort
        Of a study whose test images are generated.
    """
    space = _space(settings, layout, cohort)
    reconstruction = _reconstruction(settings, layout, cohort)
    parts: list[pd.DataFrame] = []
    contrasts: list[pd.DataFrame] = []
    checks: list[pd.DataFrame] = []
    for method, seed in assets.runs_of(settings):
        labels = {"dataset": settings.dataset, "method": method, "seed": seed}
        images = diffusion.load_generated(layout.generated(method, seed), "test")
        generated = space.scale(extract(space.extractor, images, cache=space.cache))
        checks.append(_gates(settings, cohort, space, images, generated, labels, reconstruction))
        table, gaps = _quality_of_run(settings, cohort, space, images, generated, labels)
        parts.append(table)
        contrasts.append(gaps)
    found = pd.concat(checks, ignore_index=True)
    notes = tables.failed_gates(found)
    table = tables.over_seeds(pd.concat(parts, ignore_index=True), settings.audit.confidence)
    gaps = pd.concat(contrasts, ignore_index=True)
    return QualityResult(
        tables.with_notes(table, notes), tables.with_notes(gaps, notes), found, notes
    )


def _quality_of_run(
    settings: Settings, cohort: Cohort, space: _Space, images: Any, generated: Any, labels: Any
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every metric of one run, with equity summaries, and the KID's contrasts."""
    kept, own = cohort.included(), settings.audit
    test, levels = kept.split("test").table, assets.all_levels(cohort)
    attributes = assets.attribute_levels(cohort)
    table = quality_table(
        space.test,
        generated,
        test,
        levels,
        space.kernel,
        features=space.extractor.name,
        labels=labels,
        train=(space.train, kept.split("train").table),
        probabilities=space.encoder.predict(images)[cohort.spec.primary_condition],
        confidence=own.confidence,
    )
    found = kid_audit(
        space.kernel,
        space.test,
        generated,
        test,
        attributes,
        confidence=own.confidence,
        secondary_below=own.secondary_below,
    )
    both = pd.concat([table, equity_rows(table, attributes)], ignore_index=True)
    return both, contrast_table([(labels, found)])


def _reconstruction(settings: Settings, layout: Layout, cohort: Cohort) -> Any:
    """(measured, true) cup-disc ratio of the test images after the VAE; None for real data."""
    if not is_simulated(settings.dataset):
        return None
    test = cohort.included().split("test")
    base = diffusion.load_pipeline(layout.base / "pipeline")
    seen = diffusion.reconstruct(base.vae, test.load_images(settings.model.image_size))
    truth = read_truth(cohort.root).loc[test.table["image"], "cup_disc_ratio"]
    return measure_cup_disc_ratio(seen), truth.to_numpy(dtype=np.float64)


def _gates(
    settings: Settings,
    cohort: Cohort,
    space: _Space,
    images: Any,
    generated: Any,
    labels: Any,
    reconstruction: Any,
) -> pd.DataFrame:
    """All gates of one run."""
    test, own, prompt = cohort.included().split("test").table, settings.audit, None
    if is_simulated(settings.dataset):
        asked = test["cdr_status"].isin(["normal", "abnormal"]).to_numpy()
        abnormal = (test["cdr_status"] == "abnormal").to_numpy()[asked]
        prompt = (measure_cup_disc_ratio(images[asked]), abnormal)
    name = cohort.spec.primary_condition
    return gates(
        space.kernel,
        space.test,
        generated,
        space.blurred,
        test,
        (name, cohort.spec.levels(name)),
        labels=labels,
        reconstruction=reconstruction,
        prompt=prompt,
        least_r2=own.gate_vae_r2,
        least_auc=own.gate_prompt_auc,
        confidence=own.confidence,
    )


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


def collect_perturbation(settings: Settings, layout: Layout) -> tuple[pd.DataFrame, pd.DataFrame]:
    """History of every run, and a row per run on its cost.

    Returns
    -------
    history : DataFrame
        dataset, method, seed, stage, step, quantity, attribute, level, value.
    runs : DataFrame
        dataset, method, seed, steps, seconds_per_step, optimiser_share, proposals,
        final_loss, peak_memory_gib.
    """
    folders = [layout.run(method, seed) for method, seed in assets.runs_of(settings)]
    history = training.read_history(folders)
    rows = []
    for (method, seed), folder in zip(assets.runs_of(settings), folders, strict=True):
        run = read_json(folder / "run.json")
        own = history[(history["method"] == method) & (history["seed"] == seed)]
        whole = own[own["attribute"] == ""].sort_values("step")
        proposals = whole.loc[whole["quantity"] == "acquisition", "value"]
        rows.append(
            {
                "dataset": settings.dataset,
                "method": method,
                "seed": seed,
                "steps": int(own["step"].max()),
                "seconds_per_step": run["seconds_per_step"],
                "optimiser_share": run["optimiser_share"],
                "proposals": int(np.isfinite(proposals).sum()),
                "final_loss": float(whole.loc[whole["quantity"] == "loss", "value"].iloc[-1]),
                "peak_memory_gib": run["peak_memory_gib"],
            }
        )
    return history.assign(dataset=settings.dataset), pd.DataFrame(rows)


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
    for source, seed in [("real", seed) for seed in settings.seeds] + assets.runs_of(settings):
        predictions = predict_downstream(settings, layout, cohort, source, seed)
        run = read_json(layout.classifier(source, seed) / "run.json")
        labels = {"dataset": settings.dataset, "source": source, "seed": seed}
        parts.append(
            classification_table(
                predictions,
                cohort.included().split("test").table,
                assets.attribute_levels(cohort),
                labels={**labels, "classifier": "residual"},
                thresholds={k: v for k, v in run["thresholds"].items() if v is not None},
                confidence=settings.audit.confidence,
                bootstrap=settings.audit.bootstrap,
            )
        )
    table = tables.over_seeds(pd.concat(parts, ignore_index=True), settings.audit.confidence)
    return tables.with_notes(table, tables.gate_notes(layout))


def predict_downstream(
    settings: Settings, layout: Layout, cohort: Cohort, source: str, seed: int
) -> pd.DataFrame:
    """Predictions of the real test images by a classifier trained on a source's images.

    The classifier's step and thresholds are chosen on real validation images, which no
    generator saw. Found again where they were made before.
    """
    folder = layout.classifier(source, seed)
    notes = folder / "run.json"
    if notes.is_file() and read_json(notes)["data_hash"] == cohort.data_hash:
        return read_table(folder / "predictions.csv", dtype={"image": str, "subject": str})
    kept, size = cohort.included(), settings.model.image_size
    train, val, test = (kept.split(name) for name in ("train", "val", "test"))
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
    )
    classifier.save(folder / "classifier")
    predictions = predictions_table(
        classifier.predict(test.load_images(size)),
        classifier.levels,
        test.table["image"].tolist(),
        test.table["subject"].tolist(),
        assets.prompted_codes(test),
    )
    write_table(predictions, folder / "predictions.csv", None)
    cuts = {k: None if np.isnan(v) else v for k, v in classifier.thresholds.items()}
    write_json(notes, {"data_hash": cohort.data_hash, "thresholds": cuts})
    return predictions
