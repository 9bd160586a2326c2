"""07: what classifiers of real and of generated images do on real ones, by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fairdiff_lib.audit.audit import Audit, means_over_seeds
from fairdiff_lib.audit.classifiers import (
    classification_audits,
    classification_contrasts,
    classification_table,
    contrasted_audits,
    es_audit,
)
from fairdiff_lib.audit.seeds import CHANGE_COLUMNS, compare_audits, over_seeds
from fairdiff_lib.classify.runs import REAL, Run, cost_table, notes_of, read_runs
from fairdiff_lib.disk.tables import gate_notes, with_notes
from fairdiff_lib.studies.verdict.effects import classifier_rows
from fairdiff_lib.studies.verdict.measure import bases_of
from fairdiff_lib.studies.verdict.protocol import Protocol
from fairdiff_lib.study import Study


@dataclass(frozen=True)
class Downstream:
    """What 07 writes and shows."""

    runs: list[Run]  # the classifiers' predictions
    # dataset, source ("real" or a method), seeds, classifier (the configuration that ran),
    # condition, attribute, level, metric, n, value, low, high, note
    table: pd.DataFrame
    # dataset, source, seeds, classifier, condition, CONTRAST_COLUMNS: between levels, mean over
    # seeds; all exploratory
    contrasts: pd.DataFrame
    # dataset, classifier, condition, CHANGE_COLUMNS: generated images against the baseline's and
    # against real ones, paired by seed and subject; AUC and accuracy, also equity-scaled
    changes: pd.DataFrame
    cost: pd.DataFrame  # training seconds and steps of every classifier
    tables: dict[str, pd.DataFrame]  # published, by id; the data set's own one per condition
    notes: list[str]  # gates of 05 that failed, classifiers that tell nobody apart

    def scalars(self, condition: str) -> dict[str, Any]:
        """What 07 records: a condition's overall AUC by source and classifier."""
        chosen = (self.table["condition"] == condition) & (self.table["metric"] == "auc")
        own = self.table[chosen & (self.table["attribute"] == "overall")]
        return {
            f"auc_{row.source}_{row.classifier}_seeds{row.seeds}": row.value
            for row in own.itertuples()
        }


def measure_downstream(study: Study, rule: Protocol) -> Downstream:
    """Every source's classifiers, fitted where they are missing, tested on real images."""
    runs, notes = read_runs(study), gate_notes(study.places)
    table, contrasts, changes = (
        with_notes(part(study, runs), notes) for part in (_values, _contrasts, paired_changes)
    )
    names = list(study.entry.downstream)
    parts = [table]
    if len(names) > 1:
        parts = [table[table["condition"] == name] for name in study.cohort.condition_levels]
    tables = dict(zip(names, (one.reset_index(drop=True) for one in parts), strict=True))
    tables["tab_contrasts_downstream"] = contrasts.rename(columns={"source": "method"})
    tables["tab_changes"] = changes
    tables["tab_effects_downstream"] = _effects(study, runs, rule)
    said = notes_of(study, runs)
    return Downstream(runs, table, contrasts, changes, cost_table(study), tables, said)


def _values(study: Study, runs: Sequence[Run]) -> pd.DataFrame:
    own, test = study.settings.audit, study.cohort.included().split("test").table
    parts = [
        classification_table(
            run.test, test, study.cohort.attribute_levels, labels=run.labels("source"),
            watched=run.watched, mismatched=run.mismatched, thresholds=run.cuts,
            confidence=own.confidence, bootstrap=own.bootstrap,
        )
        for run in runs
    ]  # fmt: skip
    return over_seeds(pd.concat(parts, ignore_index=True), own.confidence)


def _contrasts(study: Study, runs: Sequence[Run]) -> pd.DataFrame:
    own, test = study.settings.audit, study.cohort.included().split("test").table
    audits: dict[tuple[str, str], list[tuple[Mapping[str, Any], Audit]]] = {}
    for run in runs:
        audits.setdefault((run.source, run.classifier), []).extend(contrasted_audits(
            run.test, test, study.cohort.attribute_levels, labels=run.labels("source"),
            thresholds=run.cuts, **own.sizes,
        ))  # fmt: skip
    parts = [classification_contrasts(means_over_seeds(found)) for found in audits.values()]
    return pd.concat(parts, ignore_index=True)


def _effects(study: Study, runs: Sequence[Run], rule: Protocol) -> pd.DataFrame:
    """C3's tests, each seed's classifiers together."""
    attributes = study.cohort.attribute_levels
    found: dict[tuple[str, int], list[Audit]] = {}
    for run in runs:
        if run.source != REAL:
            data = run.scored(study.cohort, rule.condition)
            own = classification_audits(data, attributes, names=("auc",), bootstrap=0)["auc"]
            found.setdefault((run.source, run.seed), []).append(own)
    return classifier_rows(found, rule, bases_of(study))


def paired_changes(study: Study, runs: Sequence[Run]) -> pd.DataFrame:
    """Every method against ``none``, then every source of generated images against real ones."""
    attributes, confidence = study.cohort.attribute_levels, study.settings.audit.confidence
    audits: dict[tuple[str, str, str], dict[tuple[str, int], Audit]] = {}
    for run in runs:
        for condition in study.cohort.condition_levels:
            data = run.scored(study.cohort, condition)
            found = classification_audits(data, attributes, names=("auc", "accuracy"), bootstrap=0)
            for one in (*found.values(), *map(es_audit, found.values())):
                key = run.classifier, condition, one.metric
                audits.setdefault(key, {})[run.source, run.seed] = one
    parts = []
    for (classifier, condition, _), each in audits.items():
        made = {key: one for key, one in each.items() if key[0] != REAL}
        both = (compare_audits(made, confidence=confidence), compare_audits(each, REAL, confidence))
        parts += [
            found.assign(dataset=study.settings.dataset, classifier=classifier, condition=condition)
            for found in both
            if len(found)
        ]
    front = ["dataset", "classifier", "condition"]
    return pd.concat(parts, ignore_index=True)[[*front, *CHANGE_COLUMNS]]
