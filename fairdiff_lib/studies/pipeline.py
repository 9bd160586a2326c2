"""From what the runs left on disk to the study's tables: one function per notebook.

The notebooks call these, print what they return, and draw it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.audit.audit import Audit, means_over_seeds
from fairdiff_lib.audit.classifiers import (
    classification_audits,
    classification_contrasts,
    classification_table,
    contrasted_audits,
    es_audit,
    scored,
)
from fairdiff_lib.audit.gates import reconstruction_r2
from fairdiff_lib.audit.seeds import CHANGE_COLUMNS, compare_audits, over_seeds
from fairdiff_lib.classify.runs import (
    REAL,
    downstream_runs,
    read_mismatched,
    read_predictions,
    read_thresholds,
    read_watched,
)
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.datasets import dataset_of
from fairdiff_lib.disk import tables
from fairdiff_lib.disk.files import read_json
from fairdiff_lib.disk.places import Places
from fairdiff_lib.model.sample import gallery_images, load_generated
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.study import Study
from fairdiff_lib.train.runs import read_history

# -- 04 and 05: what people look at ----------------------------------------------------------


def collect_examples(
    settings: Settings, layout: Places, cohort: Cohort, seed: int, methods: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """F2's images by source ("real" and the methods), and the names of its columns."""
    rows, names = cohort.group_examples()
    test = cohort.included().split("test")
    images = {"real": test.load_images(settings.model.image_size, rows)}
    for method in methods:
        made = load_generated(layout.generated(method, seed), "test")
        images[method] = made[rows]
    return images, names


def collect_gallery(
    settings: Settings, layout: Places, cohort: Cohort, seed: int, methods: Sequence[str]
) -> dict[str, Any]:
    """F6's images by method; the rows are ``Cohort.gallery_rows``."""
    return {method: gallery_images(Study(settings, layout), method, seed) for method in methods}


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
        own = read_history([folder]).assign(method=label, dataset=dataset)
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


def path_rows(history: pd.DataFrame) -> pd.DataFrame:
    """Rows for F4: the first of several seeds; of an ablation's arms those of a usual study."""
    usual = history[history["method"].isin(["none", "random", "fairdiffusion"])]
    own = history if usual.empty else usual
    first: pd.DataFrame = own[own["seed"] == own["seed"].iloc[0]]
    return first


def method_runs(settings: Settings, layout: Places) -> list[tuple[str, Path]]:
    """(method, folder) of every run of a study."""
    return [(method, layout.run(method, seed)) for method, seed in settings.runs]


# -- 07: downstream --------------------------------------------------------------------------


def collect_downstream(settings: Settings, layout: Places, cohort: Cohort) -> pd.DataFrame:
    """Classifiers trained on real or generated images, tested on real images.

    Returns
    -------
    DataFrame
        dataset, source ("real" or a method), seeds, classifier (the configuration that ran),
        condition, attribute, level, metric, n, value, low, high, note.
    """
    test, attributes = cohort.included().split("test").table, cohort.attribute_levels
    parts = []
    for run in downstream_runs(settings):
        predictions = read_predictions(settings, layout, cohort, *run)
        parts.append(
            classification_table(
                predictions,
                test,
                attributes,
                labels=_labels(settings, *run),
                watched=read_watched(layout, *run),
                mismatched=read_mismatched(layout, cohort, *run),
                thresholds=read_thresholds(layout, *run),
                confidence=settings.audit.confidence,
                bootstrap=settings.audit.bootstrap,
            )
        )
    table = over_seeds(pd.concat(parts, ignore_index=True), settings.audit.confidence)
    return tables.with_notes(table, tables.gate_notes(layout))


def _labels(settings: Settings, source: str, seed: int, name: str) -> dict[str, Any]:
    """First columns of a classifier's rows."""
    label = settings.classifier(name).name
    return {"dataset": settings.dataset, "source": source, "seed": seed, "classifier": label}


def downstream_contrasts(settings: Settings, layout: Places, cohort: Cohort) -> pd.DataFrame:
    """Differences between levels in what the classifiers do, mean over seeds; all exploratory.

    Returns
    -------
    DataFrame
        dataset, source, seeds, classifier, condition, then ``contrasts.CONTRAST_COLUMNS``.
    """
    test, attributes = cohort.included().split("test").table, cohort.attribute_levels
    audits: dict[tuple[str, str], list[tuple[Mapping[str, Any], Audit]]] = {}
    for run in downstream_runs(settings):
        audits.setdefault((run[0], run[2]), []).extend(
            contrasted_audits(
                read_predictions(settings, layout, cohort, *run),
                test,
                attributes,
                labels=_labels(settings, *run),
                thresholds=read_thresholds(layout, *run),
                confidence=settings.audit.confidence,
                secondary_below=settings.audit.secondary_below,
            )
        )
    parts = [classification_contrasts(means_over_seeds(own)) for own in audits.values()]
    table = pd.concat(parts, ignore_index=True)
    return tables.with_notes(table, tables.gate_notes(layout))


def downstream_changes(settings: Settings, layout: Places, cohort: Cohort) -> pd.DataFrame:
    """Classifiers of generated images against the baseline's and against real ones, by seed.

    AUC and accuracy by level, and both equity-scaled by attribute: paired by seed and subject,
    for every classifier and condition that generated images have.

    Returns
    -------
    DataFrame
        dataset, classifier, condition, then ``seeds.CHANGE_COLUMNS``.
    """
    test, attributes = cohort.included().split("test").table, cohort.attribute_levels
    audits: dict[tuple[str, str, str], dict[tuple[str, int], Audit]] = {}
    for source, seed, name in downstream_runs(settings):
        predictions = read_predictions(settings, layout, cohort, source, seed, name)
        cuts = read_thresholds(layout, source, seed, name)
        for condition in cohort.condition_levels:
            data = scored(predictions, test, condition, attributes, cuts.get(condition, 0.5))
            found = classification_audits(data, attributes, names=("auc", "accuracy"), bootstrap=0)
            for one in (*found.values(), *map(es_audit, found.values())):
                audits.setdefault((name, condition, one.metric), {})[source, seed] = one
    parts = [
        _changes(own, settings.audit.confidence).assign(
            condition=condition, classifier=settings.classifier(name).name
        )
        for (name, condition, _), own in audits.items()
    ]
    table = pd.concat(parts, ignore_index=True).assign(dataset=settings.dataset)
    front = ["dataset", "classifier", "condition"]
    return tables.with_notes(table[[*front, *CHANGE_COLUMNS]], tables.gate_notes(layout))


def _changes(audits: Mapping[tuple[str, int], Audit], confidence: float) -> pd.DataFrame:
    """Every method against ``none``, then every source of generated images against real ones."""
    made = {key: one for key, one in audits.items() if key[0] != REAL}
    both = (compare_audits(made, confidence=confidence), compare_audits(audits, REAL, confidence))
    return pd.concat([part for part in both if len(part)], ignore_index=True)


# -- 02: can what was drawn be measured -------------------------------------------------------


def ruler_table(cohort: Cohort, settings: Settings) -> pd.DataFrame:
    """R^2 of the family's quantity measured on original test images; NaN without a truth."""
    test, ruler = cohort.included().split("test"), dataset_of(settings.dataset).ruler
    if ruler is None:
        return pd.DataFrame([{"measure": "none", "images": 0, "lost": 0, "value": np.nan}])
    truth = ruler.truth(cohort.root, test.table["image"].tolist())
    measured = ruler.measure(test.load_images(settings.model.image_size))
    row = {"images": len(test), "lost": int(np.isnan(measured).sum())}
    value = reconstruction_r2(measured, truth)
    return pd.DataFrame([{"measure": f"R^2 of the {ruler.name}", **row, "value": value}])
