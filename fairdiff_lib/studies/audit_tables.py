"""From the audits of every run to the study's tables: means over seeds, contrasts, differences.

A study's audits are lists of equal length and order, one list per run; the first of each list is
the primary metric's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from fairdiff_lib.audit.audit import Audit, contrast_table, labelled, mean_audit
from fairdiff_lib.audit.classifiers import encoder_fairness
from fairdiff_lib.audit.contrasts import EXPLORATORY, PRIMARY, control_discoveries
from fairdiff_lib.audit.estimate import Floats
from fairdiff_lib.audit.seeds import compare_audits
from fairdiff_lib.audit.shrinkage import intersection_rows
from fairdiff_lib.classify.predictions import predictions_table
from fairdiff_lib.data import assets
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.studies.verdict.protocol import Protocol

Run = tuple[str, int]  # method, seed
Named = dict[tuple[str, str], list[Audit]]  # (method, seeds): its audits


def with_means(audits: Mapping[Run, Sequence[Audit]], rule: Protocol) -> Named:
    """Audits of every run and of each method's mean over seeds, with the smallest effect.

    That is a share of the baseline's overall KID in the same feature space. Only the baseline
    over all of its seeds is the primary endpoint (C1).
    """
    found: Named = {(method, str(seed)): list(own) for (method, seed), own in audits.items()}
    for method in dict.fromkeys(method for method, _ in audits):
        seeds = [seed for name, seed in audits if name == method]
        groups = zip(*(audits[method, seed] for seed in seeds), strict=True)
        found[method, ",".join(map(str, seeds))] = [mean_audit(group) for group in groups]
    whole = rule.baseline, ",".join(str(seed) for name, seed in audits if name == rule.baseline)
    if whole not in found:
        return found  # nothing is declared without the baseline
    sizes = [
        rule.smallest_effect * one.overall.value if one.metric.startswith("kid") else float("nan")
        for one in found[whole]
    ]
    found = {
        key: [one.with_smallest_effect(size) for one, size in zip(own, sizes, strict=True)]
        for key, own in found.items()
    }
    found[whole][0] = found[whole][0].with_role(PRIMARY)
    return found


def study_contrasts(named: Named, rule: Protocol) -> pd.DataFrame:
    """tab_contrasts: differences between levels, of every run and of each method's mean."""
    labels = [{"dataset": rule.dataset, "method": m, "seeds": seeds} for m, seeds in named]
    return contrast_table(
        [(label, one) for label, own in zip(labels, named.values(), strict=True) for one in own]
    )


def study_differences(audits: Mapping[Run, Sequence[Audit]], rule: Protocol) -> pd.DataFrame:
    """tab_differences: methods against the baseline by group, paired by seed; exploratory."""
    each = range(len(next(iter(audits.values()))))
    parts = [
        compare_audits({run: own[k] for run, own in audits.items()}, rule.baseline, rule.confidence)
        for k in each
    ]
    table = pd.concat(parts, ignore_index=True)
    table = table.assign(role=EXPLORATORY, p_adjusted=np.nan)
    return labelled(control_discoveries(table), {"dataset": rule.dataset})


def study_intersections(
    named: Named, crossing: Mapping[str, Sequence[str]], rule: Protocol
) -> pd.DataFrame:
    """tab_intersections: KID of every combination of levels, raw and shrunken."""
    parts = []
    for (method, seeds), own in named.items():
        for name in crossing:
            rows = intersection_rows(own[0], name)
            labels = {"dataset": rule.dataset, "method": method, "seeds": seeds}
            parts.append(labelled(rows, labels))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["note"])


def encoder_table(
    probabilities: dict[str, Floats], cohort: Cohort, table: pd.DataFrame, rule: Protocol
) -> pd.DataFrame:
    """tab_encoder: how well the encoder reads each group's real test images, and the noise floor.

    Parameters
    ----------
    probabilities : dict of str to float64 [N, K]
        The encoder's, on the real test images.
    table : DataFrame
        The study's quality table: its real-against-real floors are taken over.

    Returns
    -------
    DataFrame
        dataset, condition (empty for a floor), attribute, level, metric (encoder_accuracy,
        encoder_auc, kid_floor), features, n, value, low, high, note.
    """
    test = cohort.included().split("test")
    heads = {c.name: c.levels for c in cohort.spec.conditions}
    predictions = predictions_table(
        probabilities,
        heads,
        test.table["image"].tolist(),
        test.table["subject"].tolist(),
        test.condition_codes(),
    )
    attributes = assets.attribute_levels(cohort)
    read = encoder_fairness(
        predictions, test.table, attributes, labels={}, confidence=rule.confidence
    )
    first = table[["method", "seeds"]].iloc[0]  # the reals are the same for every run
    floors = table[(table[["method", "seeds"]] == first).all(axis=1)]
    floors = floors[floors["metric"] == "kid_floor"]
    floors = floors[floors["attribute"].isin(["overall", *attributes])].assign(condition="")
    both = pd.concat([read.assign(features=rule.features), floors], ignore_index=True)
    columns = ["condition", "attribute", "level", "metric", "features"]
    columns += ["n", "value", "low", "high", "note"]
    return labelled(both[columns], {"dataset": rule.dataset})
