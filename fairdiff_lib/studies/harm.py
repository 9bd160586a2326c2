"""12: may a classifier's probabilities be believed, who is missed, and what do images show?

From the predictions and images that the runs left on disk to tables; what images show is in
:mod:`shown`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fairdiff_lib.audit.audit import Audit, Labelled, contrast_table, labelled, means_over_seeds
from fairdiff_lib.audit.classifiers import CONTRASTED
from fairdiff_lib.audit.harm import (
    confusion_rows,
    group_thresholds,
    harm_audits,
    harm_table,
    reliability_rows,
    roc_rows,
)
from fairdiff_lib.audit.seeds import over_seeds
from fairdiff_lib.classify.runs import Run, notes_of, read_runs
from fairdiff_lib.disk.tables import gate_notes, with_notes
from fairdiff_lib.studies.shown import measure_probe, measure_shown, read_pictures, ruler_rows
from fairdiff_lib.study import Study


@dataclass(frozen=True)
class Harm:
    """What 12 writes and shows.

    Every table begins with dataset, method ("real" or a method) and seeds, then what names the
    number, then attribute, level, metric, n, value, low, high, note. Contrasts end with
    ``contrasts.CONTRAST_COLUMNS`` and are of the mean of the seeds' models, so that a subject
    counts once; all are exploratory.
    """

    runs: list[Run]  # the classifiers' predictions
    table: pd.DataFrame  # calibration and harm of every classifier and condition
    contrasts: pd.DataFrame  # of what 07's don't have
    # "roc", "reliability", "confusion" of the first classifier and seed of every source, for the
    # primary condition: the columns of ``audit.harm``'s rows
    curves: dict[str, pd.DataFrame]
    shown: pd.DataFrame  # what generated images show against what was asked, beside real ones
    shown_contrasts: pd.DataFrame
    ruler: pd.DataFrame  # rows of ``shown`` measured from a simulated picture; none of real data
    probe: pd.DataFrame  # can the group be read from an image?
    notes: list[str]  # gates of 05 that failed, classifiers that tell nobody apart

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        return {
            "tab_harm": self.table,
            "tab_harm_contrasts": self.contrasts,
            "tab_shown": self.shown,
            "tab_shown_contrasts": self.shown_contrasts,
            "tab_probe": self.probe,
        }

    def scalars(self, condition: str) -> dict[str, Any]:
        """What 12 records: a condition's overall false-negative rate, and macro probe AUC."""
        missed = self.table[self.table["condition"] == condition]
        missed = missed[(missed["metric"] == "fnr") & (missed["attribute"] == "overall")]
        found = {f"fnr_{row.method}_seeds{row.seeds}": row.value for row in missed.itertuples()}
        macro = self.probe[(self.probe["metric"] == "probe_auc") & (self.probe["level"] == "all")]
        for row in macro.itertuples():
            name = f"probe_{row.attribute}_{row.features}_{row.method}_by_{row.trained_on}"
            found[f"{name}_seeds{row.seeds}"] = row.value
        return found


def measure_harm(study: Study) -> Harm:
    """Everything of 12. Nothing is trained where 05 and 07 have run."""
    runs, pictures = read_runs(study), read_pictures(study)
    table, contrasts = finish(study, *_harm(study, runs))
    shown, lost = finish(study, *measure_shown(study, pictures))
    values = over_seeds(measure_probe(study, pictures), study.settings.audit.confidence)
    probe, notes = with_notes(values, gate_notes(study.places)), notes_of(study, runs)
    drawn, ruler = _curves(study, runs), ruler_rows(shown, study.settings.dataset)
    return Harm(runs, table, contrasts, drawn, shown, lost, ruler, probe, notes)


def finish(
    study: Study, parts: Sequence[pd.DataFrame], audits: Labelled
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Values with their means over seeds, contrasts of these means; with the gates' notes."""
    notes = gate_notes(study.places)
    values = over_seeds(pd.concat(parts, ignore_index=True), study.settings.audit.confidence)
    contrasts = contrast_table(means_over_seeds(audits))
    return with_notes(values, notes), with_notes(contrasts, notes)


def _harm(
    study: Study, runs: Sequence[Run]
) -> tuple[list[pd.DataFrame], list[tuple[Mapping[str, Any], Audit]]]:
    own, cohort = study.settings.audit, study.cohort
    parts: list[pd.DataFrame] = []
    audits: list[tuple[Mapping[str, Any], Audit]] = []
    for run in runs:
        for condition, levels in cohort.condition_levels.items():
            test, validation = (run.scored(cohort, condition, name) for name in ("test", "val"))
            two = len(levels) == 2
            cuts = group_thresholds(validation, replicates=own.bootstrap) if two else None
            levels_of = cohort.attribute_levels
            found = harm_audits(test, cuts, levels_of, bootstrap=own.bootstrap, **own.sizes)
            labels = {**run.labels(), "condition": condition}
            parts.append(labelled(harm_table(found, cuts), labels))
            audits += [(labels, one) for name, one in found.items() if name not in CONTRASTED]
    return parts, audits


def _curves(study: Study, runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """Rows of the pictures: a condition of two levels, or none of roc and reliability."""
    own, condition = study.settings.audit, study.cohort.spec.primary_condition
    names = study.cohort.condition_levels[condition]
    parts: dict[str, list[pd.DataFrame]] = {"roc": [], "reliability": [], "confusion": []}
    for run in runs:
        if (run.seed, run.classifier) != (runs[0].seed, runs[0].classifier):
            continue
        data = run.scored(study.cohort, condition)
        found = {
            "roc": roc_rows(data, own.bootstrap, confidence=own.confidence),
            "reliability": reliability_rows(data, confidence=own.confidence),
            "confusion": confusion_rows(data, names, confidence=own.confidence),
        }
        for name, rows in found.items():
            parts[name].append(labelled(rows, run.labels()))
    return {name: pd.concat(rows, ignore_index=True) for name, rows in parts.items()}
