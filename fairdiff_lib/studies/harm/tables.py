"""12: calibration and harm, from the predictions that the runs left on disk to tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fairdiff_lib.audit.audit import Audit, Labelled, contrast_table, labelled, means_over_seeds
from fairdiff_lib.audit.classifiers import CONTRASTED, Scored, scored
from fairdiff_lib.audit.harm import (
    confusion_rows,
    group_thresholds,
    harm_audits,
    harm_table,
    reliability_rows,
    roc_rows,
)
from fairdiff_lib.audit.seeds import over_seeds
from fairdiff_lib.classify.fit import Classifier
from fairdiff_lib.classify.predictions import predictions_table
from fairdiff_lib.classify.runs import (
    SPLITS,
    downstream_runs,
    read_predictions,
    read_thresholds,
)
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.disk import tables
from fairdiff_lib.disk.places import Places
from fairdiff_lib.settings.options import Settings

Labels = dict[str, Any]


@dataclass(frozen=True)
class Tables:
    """What a part of the notebook writes and shows.

    Attributes
    ----------
    table : DataFrame
        dataset, method ("real" or a method), seeds, then names of the number, attribute, level,
        metric, n, value, low, high, note.
    contrasts : DataFrame
        dataset, method, seeds, names, then ``contrasts.CONTRAST_COLUMNS``: of the mean of the
        seeds' models, so that a subject counts once.
    """

    table: pd.DataFrame
    contrasts: pd.DataFrame


def finish(
    settings: Settings, layout: Places, parts: Sequence[pd.DataFrame], audits: Labelled
) -> Tables:
    """Means over seeds, contrasts, and the notes of gates that failed."""
    table = over_seeds(pd.concat(parts, ignore_index=True), settings.audit.confidence)
    notes = tables.gate_notes(layout)
    contrasts = tables.with_notes(contrast_table(means_over_seeds(audits)), notes)
    return Tables(tables.with_notes(table, notes), contrasts)


# -- what the classifiers said ---------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """What a downstream classifier said.

    Attributes
    ----------
    labels : dict
        dataset, method, seed, classifier.
    test, validation : DataFrame
        ``predictions.predictions_table`` of real images.
    cuts : dict of str to float
        Condition to the threshold chosen on validation.
    """

    labels: Labels
    test: pd.DataFrame
    validation: pd.DataFrame
    cuts: dict[str, float]

    def scored(self, cohort: Cohort, condition: str) -> tuple[Scored, Scored]:
        """Test and validation predictions of a condition, as arrays."""
        attributes, kept = cohort.attribute_levels, cohort.included()
        cut = self.cuts.get(condition, 0.5)
        named = (("test", self.test), ("val", self.validation))
        test, validation = (
            scored(own, kept.split(split).table, condition, attributes, cut) for split, own in named
        )
        return test, validation


def read_run(
    settings: Settings, layout: Places, cohort: Cohort, source: str, seed: int, name: str
) -> Run:
    """Predictions of a source's classifier on test and on validation images; made if missing."""
    test, validation = (
        read_predictions(settings, layout, cohort, source, seed, name, split) for split in SPLITS
    )
    labels = {"dataset": settings.dataset, "method": source, "seed": seed}
    labels["classifier"] = settings.classifier(name).name
    return Run(labels, test, validation, read_thresholds(layout, source, seed, name))


def read_back(classifier: Classifier, split: Cohort, images: Any) -> pd.DataFrame:
    """What a classifier sees in images of a split's rows, real or generated for their prompts.

    Returns
    -------
    DataFrame
        ``predictions.predictions_table`` of the prompted conditions.
    """
    levels = split.condition_levels
    found = classifier.predict(images)
    return predictions_table(
        {name: found[name] for name in levels},
        levels,
        split.table["image"].tolist(),
        split.table["subject"].tolist(),
        split.prompted_codes(),
    )


def read_runs(settings: Settings, layout: Places, cohort: Cohort) -> list[Run]:
    """Every source's classifiers, real images first."""
    return [read_run(settings, layout, cohort, *one) for one in downstream_runs(settings)]


# -- tables ----------------------------------------------------------------------------------


def collect_harm(settings: Settings, layout: Places, cohort: Cohort, runs: Sequence[Run]) -> Tables:
    """Calibration and harm of every classifier and condition, by group.

    The contrasts are of what ``downstream.classification_contrasts`` doesn't have.
    """
    own, attributes = settings.audit, cohort.attribute_levels
    parts: list[pd.DataFrame] = []
    audits: list[tuple[Mapping[str, Any], Audit]] = []
    for run in runs:
        for condition, levels in cohort.condition_levels.items():
            test, validation = run.scored(cohort, condition)
            two = len(levels) == 2
            cuts = group_thresholds(validation, replicates=own.bootstrap) if two else None
            found = harm_audits(
                test,
                cuts,
                attributes,
                confidence=own.confidence,
                secondary_below=own.secondary_below,
                bootstrap=own.bootstrap,
            )
            labels = {**run.labels, "condition": condition}
            parts.append(labelled(harm_table(found, cuts), labels))
            audits += [(labels, one) for name, one in found.items() if name not in CONTRASTED]
    return finish(settings, layout, parts, audits)


def collect_curves(
    settings: Settings, cohort: Cohort, runs: Sequence[Run], condition: str
) -> dict[str, pd.DataFrame]:
    """Rows of the pictures: first classifier and seed of every source, a condition of two levels.

    Returns
    -------
    dict
        "roc", "reliability", "confusion": dataset, method, seed, classifier, then the columns of
        ``curves``.
    """
    own, names = settings.audit, cohort.condition_levels[condition]
    first = settings.classifier(settings.classifiers[0]).name
    parts: dict[str, list[pd.DataFrame]] = {"roc": [], "reliability": [], "confusion": []}
    for run in runs:
        if run.labels["seed"] != settings.seeds[0] or run.labels["classifier"] != first:
            continue
        data, _ = run.scored(cohort, condition)
        found = {
            "roc": roc_rows(data, own.bootstrap, confidence=own.confidence),
            "reliability": reliability_rows(data, confidence=own.confidence),
            "confusion": confusion_rows(data, names, confidence=own.confidence),
        }
        for name, rows in found.items():
            parts[name].append(labelled(rows, run.labels))
    return {name: pd.concat(rows, ignore_index=True) for name, rows in parts.items()}
