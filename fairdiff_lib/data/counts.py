"""Who is in a cohort: counts and prevalence by level and split (T1)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
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
    included = cohort.included().table
    rows: list[dict[str, Any]] = []
    for split in (*SPLITS, "all"):
        whole = included if split == "all" else included[included["split"] == split]
        for attribute, level in _levels(cohort):
            images = _of(whole, attribute, level)
            own = images.drop_duplicates("subject")
            key = {"dataset": dataset, "split": split, "attribute": attribute, "level": level}
            blank = {**key, "condition": "", "condition_level": "", "n": len(own)}
            for metric, count in (("count", len(own)), ("images", len(images))):
                nan = {"low": np.nan, "high": np.nan}
                rows.append({**blank, **nan, "metric": metric, "value": float(count)})
            rows += [{**key, **row} for row in _prevalences(own, cohort, confidence)]
    return pd.DataFrame(rows)


def _levels(cohort: Cohort, *more: str) -> list[tuple[str, str]]:
    """Everyone, then every (attribute, level), with more levels of each."""
    own = [(a.name, level) for a in cohort.spec.attributes for level in (*a.levels, *more)]
    return [("overall", "all"), *own]


def _of(table: pd.DataFrame, attribute: str, level: str) -> pd.DataFrame:
    return table if attribute == "overall" else table[table[attribute] == level]


def _prevalences(own: pd.DataFrame, cohort: Cohort, confidence: float) -> Iterator[dict[str, Any]]:
    """Share of subjects at every condition level, with Wilson's interval; NaN without subjects."""
    for condition in cohort.spec.conditions:
        for level in condition.levels:
            hits, n = int((own[condition.name] == level).sum()), len(own)
            low, high = (np.nan, np.nan)
            if n:
                low, high = proportion_confint(hits, n, alpha=1 - confidence, method="wilson")
            name = {"condition": condition.name, "condition_level": level, "metric": "prevalence"}
            yield {**name, "n": n, "value": hits / n if n else np.nan, "low": low, "high": high}


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
    rows = []
    for (step, part), (attribute, level) in product(steps, _levels(cohort, UNKNOWN)):
        own = _of(part, attribute, level)
        if len(own) or level != UNKNOWN:
            row = {"step": step, "attribute": attribute, "level": level}
            rows.append({**row, "subjects": own["subject"].nunique(), "images": len(own)})
    return pd.DataFrame(rows)
