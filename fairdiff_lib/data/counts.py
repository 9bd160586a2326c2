"""Who is in a cohort: counts and prevalence by level and split (T1)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.data.reading import OUTSIDE, SPLITS, UNKNOWN


def cohort_table(cohort: Cohort, dataset: str, confidence: float = 0.95) -> pd.DataFrame:
    """Subjects by attribute level and split, and prevalence of every condition level.

    Of included rows: dataset, split (train, val, test, all), attribute, level, condition,
    condition_level, metric ("count": subjects, "images", "prevalence"), n (subjects), value, low,
    high (Wilson intervals at ``confidence``).
    """
    included = cohort.included()
    subjects = included.table.drop_duplicates("subject")
    levels = {"overall": ("all",)} | {a.name: a.levels for a in cohort.spec.attributes}
    rows: list[dict[str, Any]] = []
    for split in (*SPLITS, "all"):
        for attribute, names in levels.items():
            for level in names:
                key = {"dataset": dataset, "split": split, "attribute": attribute, "level": level}
                own = _rows_of(subjects, split, attribute, level)
                images = len(_rows_of(included.table, split, attribute, level))
                blank = {**key, "condition": "", "condition_level": "", "n": len(own)}
                counted = {"count": float(len(own)), "images": float(images)}
                rows += [
                    {**blank, "low": np.nan, "high": np.nan, "metric": metric, "value": value}
                    for metric, value in counted.items()
                ]
                rows += _prevalences(key, own, cohort, confidence)
    return pd.DataFrame(rows)


def _rows_of(table: pd.DataFrame, split: str, attribute: str, level: str) -> pd.DataFrame:
    if split != "all":
        table = table[table["split"] == split]
    return table if attribute == "overall" else table[table[attribute] == level]


def _prevalences(
    key: dict[str, Any], own: pd.DataFrame, cohort: Cohort, confidence: float
) -> list[dict[str, Any]]:
    """Share of subjects at every condition level, with Wilson's interval; NaN without subjects."""
    rows = []
    for condition in cohort.spec.conditions:
        for level in condition.levels:
            hits, n = int((own[condition.name] == level).sum()), len(own)
            low, high = (np.nan, np.nan)
            if n:
                low, high = proportion_confint(hits, n, alpha=1 - confidence, method="wilson")
            value = hits / n if n else np.nan
            name = {"condition": condition.name, "condition_level": level, "metric": "prevalence"}
            rows.append({**key, **name, "n": n, "value": value, "low": low, "high": high})
    return rows


def split_table(cohort: Cohort) -> pd.DataFrame:
    """Per split: subjects, images, excluded images, and subjects shared with another split."""
    table = cohort.table
    homes = table[table["split"] != OUTSIDE].groupby("subject")["split"].nunique()
    rows = []
    for split in SPLITS:
        own = table[table["split"] == split]
        kept = own[own["excluded"] == ""]
        row = {"split": split, "subjects": kept["subject"].nunique(), "images": len(kept)}
        row |= {"excluded_images": len(own) - len(kept)}
        crossing = int((homes[own["subject"].unique()] > 1).sum())
        rows.append({**row, "subjects_in_another_split": crossing})
    return pd.DataFrame(rows)


def flow_table(cohort: Cohort) -> pd.DataFrame:
    """Who is in the data, who left and why, and who is in the study (a flow diagram's numbers).

    A subject is counted as in the study if any of its images is, else as having left for the
    reason of its first image: step ("in the data", "left: " with the reason, "in the study"),
    attribute, level (those not known too), subjects, images.
    """
    table = cohort.table
    kept = table[table["excluded"] == ""]
    gone = table[~table["subject"].isin(kept["subject"])]
    first = gone.drop_duplicates("subject").set_index("subject")["excluded"]
    steps = [("in the data", table)]
    for reason in first.unique():
        own = gone[gone["subject"].isin(first.index[first == reason])]
        steps.append((f"left: {reason}", own))
    steps.append(("in the study", kept))
    levels = {"overall": ("all",)} | {a.name: (*a.levels, UNKNOWN) for a in cohort.spec.attributes}
    rows = []
    for step, part in steps:
        for attribute, names in levels.items():
            for level in names:
                own = part if attribute == "overall" else part[part[attribute] == level]
                if len(own) or level != UNKNOWN:
                    row = {"step": step, "attribute": attribute, "level": level}
                    rows.append({**row, "subjects": own["subject"].nunique(), "images": len(own)})
    return pd.DataFrame(rows)
