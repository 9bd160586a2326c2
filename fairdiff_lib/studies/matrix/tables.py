"""13: what real, generated and mixed training images make of a classifier, as tables.

Also train on A, test on B: the study's classifiers read the test images of every source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.audit.audit import Audit, labelled, mean_audit
from fairdiff_lib.audit.classifiers import (
    classification_audits,
    classification_table,
    es_audit,
    scored,
)
from fairdiff_lib.audit.seeds import compare_audits, over_seeds
from fairdiff_lib.classify.fit import Classifier
from fairdiff_lib.classify.runs import REAL, downstream_runs, read_predictions, training_images
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.disk import tables
from fairdiff_lib.disk.places import Places
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.studies.harm.tables import read_back
from fairdiff_lib.studies.matrix.arms import ARMS, MatrixRun, generator_seed, shares_of
from fairdiff_lib.studies.matrix.runs import Matrix

AUDITED = ("auc", "accuracy")  # by group
METRICS = (
    *("auc", "accuracy", "es_auc", "es_accuracy", "psd_mean", "psd_max"),
    *("dpd", "eod"),
)
COSTS = (
    *("arm", "share", "seed", "real_images", "generated_images", "generator_seed", "steps"),
    *("steps_before", "batch", "selected_step", "seconds"),
)
BOTH_WAYS = "auc_both_ways"


@dataclass(frozen=True)
class MatrixResult:
    """The matrix's tables.

    Attributes
    ----------
    table : DataFrame
        dataset, method (the arm), share, classifier, condition, attribute, level, metric, seeds,
        n, value, low, high, note.
    changes : DataFrame
        dataset, classifier, condition, share, baseline_share, then ``seeds.CHANGE_COLUMNS``: an
        arm minus real images, at the same share, or at all of them where the arm has no real ones.
    cost : DataFrame
        A row per run: what it was shown, its steps and seconds.
    attribute : str
        That balanced images are balanced over.
    """

    table: pd.DataFrame
    changes: pd.DataFrame
    cost: pd.DataFrame
    attribute: str


def collect_matrix(settings: Settings, layout: Places, cohort: Cohort) -> MatrixResult:
    """Every run of the matrix as tables; a missing one is fitted.

    Raises
    ------
    InputError
        Bad settings, missing generated images, shares too small, or runs of unequal steps.
    """
    matrix = Matrix(settings, layout, cohort)
    test, attributes = cohort.included().split("test").table, cohort.attribute_levels
    name, confidence = matrix.config.name, settings.audit.confidence
    parts: list[pd.DataFrame] = []
    audits: dict[tuple[MatrixRun, str], dict[str, Audit]] = {}
    for run in matrix.runs():
        predictions, cuts = matrix.predictions(run), matrix.thresholds(run)
        labels = {"dataset": settings.dataset, "method": run.arm, "share": run.share}
        parts.append(
            classification_table(
                predictions,
                test,
                attributes,
                labels={**labels, "seed": run.seed, "classifier": name},
                thresholds=cuts,
                metrics=AUDITED,
                confidence=confidence,
                bootstrap=settings.audit.bootstrap,
            )
        )
        for condition in matrix.levels:
            cut = cuts.get(condition, 0.5)
            data = scored(predictions, test, condition, attributes, cut)
            found = classification_audits(
                data, attributes, confidence, names=AUDITED, bootstrap=0
            ).values()
            both = (*found, *map(es_audit, found))
            audits[run, condition] = {one.metric: one for one in both}
    whole = pd.concat(parts, ignore_index=True)
    table = over_seeds(whole[whole["metric"].isin(METRICS)], confidence)
    notes = [*tables.gate_notes(layout), generator_note(settings)]
    changes = _changes(matrix, audits, confidence)
    labels = {"dataset": settings.dataset, "classifier": name}
    cost = pd.DataFrame([matrix.notes(run) for run in matrix.runs()])[list(COSTS)]
    refuse_unequal(cost)
    return MatrixResult(
        tables.with_notes(table, notes),
        tables.with_notes(labelled(changes, labels), notes),
        cost,
        matrix.attribute,
    )


def generator_note(settings: Settings) -> str:
    """How many trained generators are behind the matrix's seeds, and what they were trained on."""
    used = sorted({generator_seed(settings, seed) for seed in settings.matrix.seeds})
    many = f"{len(used)} generators" if len(used) > 1 else "one generator"
    text = f"{many} ({settings.matrix.method}) behind {len(settings.matrix.seeds)} seed(s)"
    text = text if len(used) > 1 else f"{text}: no interval covers its training"
    return f"{text}; trained on all real training subjects, whatever the share"


def refuse_unequal(cost: pd.DataFrame) -> None:
    """Refuse runs that were not given equally many optimiser steps of equal size.

    Raises
    ------
    InputError
        Names the first run that differs.
    """
    first = cost.iloc[0]
    for _, row in cost.iterrows():
        if (row["steps"], row["batch"]) != (first["steps"], first["batch"]):
            raise InputError(
                f"matrix: {row['arm']}, share {row['share']:g}, seed {row['seed']}, took "
                f"{row['steps']} steps of {row['batch']} images; expected {first['steps']} of "
                f"{first['batch']}, as every run"
            )


# -- an arm against real images --------------------------------------------------------------

Audits = Mapping[tuple[MatrixRun, str], Mapping[str, Audit]]  # (run, condition): metric: audit


def _changes(matrix: Matrix, audits: Audits, confidence: float) -> pd.DataFrame:
    """Every arm minus real images, paired by seed."""
    parts = []
    own = matrix.settings.matrix
    for arm in (name for name in ARMS if name != REAL):
        for share in shares_of(own, arm):
            base = share or 1.0  # an arm without real images against all of them
            for condition in matrix.levels:
                for metric in audits[MatrixRun(REAL, 1.0, own.seeds[0]), condition]:
                    pair = {
                        (name, seed): audits[MatrixRun(name, at, seed), condition][metric]
                        for seed in own.seeds
                        for name, at in ((arm, share), (REAL, base))
                    }
                    found = compare_audits(pair, REAL, confidence)
                    labels = {"condition": condition, "share": share, "baseline_share": base}
                    parts.append(labelled(found, labels))
    return pd.concat(parts, ignore_index=True)


# -- train on A, test on B -------------------------------------------------------------------


def collect_transfer(settings: Settings, layout: Places, cohort: Cohort) -> pd.DataFrame:
    """Every source's classifiers on the test images of every source, of the same seed.

    The sources are real images and the study's methods; of a generated image the truth is what
    its prompt asked for.

    Returns
    -------
    DataFrame
        dataset, method (trained on), tested_on, classifier, condition, attribute, level, metric,
        seeds, n, value, low, high, note. Metrics: auc; and auc_both_ways, once for two sources,
        the mean of trained on A, tested on B and the other way round (generalised
        cross-validation).
    """
    parts = []
    for name in settings.classifiers:
        for seed in settings.seeds:
            found = _crossed(settings, layout, cohort, seed, name)
            for (source, target, condition), one in _with_both_ways(found):
                labels: dict[str, Any] = {"dataset": settings.dataset, "method": source}
                labels |= {
                    "tested_on": target,
                    "seed": seed,
                    "classifier": settings.classifier(name).name,
                }
                parts.append(labelled(one.by_group, {**labels, "condition": condition}))
    table = over_seeds(pd.concat(parts, ignore_index=True), settings.audit.confidence)
    return tables.with_notes(table, tables.gate_notes(layout))


Crossed = dict[tuple[str, str, str], Audit]  # trained on, tested on, condition


def _crossed(settings: Settings, layout: Places, cohort: Cohort, seed: int, name: str) -> Crossed:
    """AUC of a seed's classifiers on every source's test images."""
    test, attributes = cohort.included().split("test"), cohort.attribute_levels
    sources = [
        source for source, own, kind in downstream_runs(settings) if (own, kind) == (seed, name)
    ]
    prepared = settings.classifier(name).preparation
    shown = {
        source: training_images(settings, layout, test, source, seed, prepared, "test")
        for source in sources
    }
    found: Crossed = {}
    for source in sources:
        read_predictions(settings, layout, cohort, source, seed, name)  # fits it where missing
        classifier = Classifier.load(layout.classifier(source, seed, name) / "classifier")
        for target in sources:
            predictions = read_back(classifier, test, shown[target])
            for condition in cohort.condition_levels:
                data = scored(predictions, test.table, condition, attributes)
                found[source, target, condition] = classification_audits(
                    data, attributes, settings.audit.confidence, names=("auc",), bootstrap=0
                )["auc"]
    return found


def _with_both_ways(found: Crossed) -> Iterator[tuple[tuple[str, str, str], Audit]]:
    """The audits, and for two sources the mean of both directions under the first's name."""
    yield from found.items()
    sources = list(dict.fromkeys(source for source, _, _ in found))
    for first, second, condition in found:
        if sources.index(first) < sources.index(second):
            pair = [found[first, second, condition], found[second, first, condition]]
            both = replace(mean_audit(pair), metric=BOTH_WAYS)
            yield (first, second, condition), both


# -- what the notebook shows and records -----------------------------------------------------


def cost_summary(cost: pd.DataFrame) -> pd.DataFrame:
    """A row per arm and share: images, steps, share of real images in a step, mean seconds."""
    found = cost.groupby(["arm", "share"], sort=False, as_index=False).agg(
        runs=("seed", "size"),
        real_images=("real_images", "mean"),
        generated_images=("generated_images", "mean"),
        steps=("steps", "first"),
        steps_before=("steps_before", "first"),
        batch=("batch", "first"),
        seconds=("seconds", "mean"),
    )
    together = found["real_images"] / (found["real_images"] + found["generated_images"])
    after = 1 - found["steps_before"] / found["steps"]  # of the images that a run is shown
    found["real_shown"] = np.where(found["steps_before"] > 0, after, together)
    return found


def matrix_scalars(result: MatrixResult, transfer: pd.DataFrame, condition: str) -> dict[str, Any]:
    """What 13 records: overall AUC of the primary condition by run and by pair, and the steps."""

    def overall(table: pd.DataFrame) -> pd.DataFrame:
        chosen = (table["condition"] == condition) & (table["metric"] == "auc")
        return table[chosen & (table["attribute"] == "overall")]

    found = {
        f"auc_{row.method}_share{row.share:g}_seeds{row.seeds}": row.value
        for row in overall(result.table).itertuples()
    }
    found |= {
        f"auc_{row.method}_on_{row.tested_on}_{row.classifier}_seeds{row.seeds}": row.value
        for row in overall(transfer).itertuples()
    }
    steps = {"runs": len(result.cost), "steps": int(result.cost["steps"].iloc[0])}
    return {**found, **steps, "balanced_over": result.attribute}
