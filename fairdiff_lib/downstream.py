"""Downstream fairness: what classifiers do on real test images, by group.

Input are tidy predictions (a row per image, condition and level); output are tidy tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from fairdiff_lib import parity
from fairdiff_lib.config import InputError
from fairdiff_lib.estimators import multiplicities
from fairdiff_lib.fairness import (
    GAP_NOTE,
    Audit,
    auc_metric,
    audit,
    contrast_table,
    labelled,
    mean_metric,
)
from fairdiff_lib.inference import MIN_UNITS, Bools, Floats, Groups, Ints, Levels, group_units

UNKNOWN = "unknown"  # truth of a row that is left out
NEEDED = ("image", "subject", "condition", "truth", "level", "probability")
COLUMNS = (
    "condition", "attribute", "level", "metric", "n", "value", "low", "high", "note",
)  # fmt: skip
SE_NOTE = "interval from the standard error of a cluster bootstrap; description, biased by n"
Row = dict[str, Any]


@dataclass(frozen=True)
class Scored:
    """One condition's predictions, rows with a known truth only.

    Attributes
    ----------
    truth, predicted : int64 [N]
        Class index.
    scores : float64 [N, K]
    groups : Groups
    """

    truth: Ints
    predicted: Ints
    scores: Floats
    groups: Groups

    def codes(self, attribute: str, levels: Sequence[str]) -> Ints:
        """Level index of each row, int64 [N]."""
        columns = [self.groups.column(attribute, level) for level in levels]
        return np.asarray(np.argmax(np.stack(columns, 1), axis=1)[self.groups.unit], np.int64)


def scored(
    predictions: pd.DataFrame,
    table: pd.DataFrame,
    condition: str,
    attributes: Levels,
    threshold: float = 0.5,
) -> Scored:
    """Arrays of one condition, joined with the attributes by image name.

    Parameters
    ----------
    predictions : DataFrame
        image, subject, condition, truth, level, probability; truth and level are names.
    table : DataFrame
        image and a column of level names per attribute.
    condition : str
    attributes : mapping
    threshold : float
        On the probability of the second level, for two levels.

    Raises
    ------
    InputError
        A missing column, an image without attributes, a level without a probability, a
        probability outside [0, 1].
    """
    missing = [c for c in NEEDED if c not in predictions] + ["image"] * ("image" not in table)
    if missing:
        raise InputError(f"predictions or table of images: column {missing[0]!r} is missing")
    part = predictions[predictions["condition"] == condition]
    twice = part[["image", "level"]].duplicated()
    if twice.any():
        name = part["image"].iloc[int(np.argmax(twice))]
        raise InputError(f"predictions of {condition}: image {name!r} repeats a level")
    names = list(dict.fromkeys(part["level"]))
    wide = part.pivot(index="image", columns="level", values="probability")[names]
    scores = wide.to_numpy(dtype=np.float64)
    if not ((scores >= 0) & (scores <= 1)).all():
        row = int(np.argmin(((scores >= 0) & (scores <= 1)).all(axis=1)))
        raise InputError(
            f"predictions of {condition}: image {wide.index[row]!r} lacks a probability in "
            "[0, 1] for every level"
        )
    first = part.drop_duplicates("image").set_index("image").loc[wide.index]
    absent = wide.index.difference(pd.Index(table["image"]))
    if len(absent):
        raise InputError(f"predictions of {condition}: image {absent[0]!r} is not in the cohort")
    known = (first["truth"] != UNKNOWN).to_numpy(dtype=bool)
    index = {name: code for code, name in enumerate(names)}
    strange = sorted(set(first["truth"][known]) - set(names))
    if strange:
        raise InputError(f"predictions of {condition}: truth {strange[0]!r} is no level of it")
    truth = np.array([index[name] for name in first["truth"][known]], dtype=np.int64)
    people = table.set_index("image").loc[wide.index[known], list(attributes)]
    people = people.assign(subject=first["subject"][known])
    predicted = parity.predicted_class(scores[known], threshold)
    return Scored(truth, predicted, scores[known], group_units(people, attributes))


def classification_audits(
    data: Scored, attributes: Levels, confidence: float = 0.95, secondary_below: int = 80
) -> list[Audit]:
    """Accuracy and AUC of one condition; with two levels also the rates behind DPD and EOD.

    AUC is DeLong's; the rates make DPD and EOD testable as signed contrasts.
    """
    correct = (data.truth == data.predicted).astype(np.float64)
    metrics = {
        "accuracy": mean_metric(correct, bounded=True),
        "auc": auc_metric(data.truth, data.scores),
    }
    if data.scores.shape[1] == 2:
        called = (data.predicted == 1).astype(np.float64)
        for name, rows in (
            ("selection_rate", np.ones(len(called), dtype=bool)),
            ("true_positive_rate", data.truth == 1),
            ("false_positive_rate", data.truth == 0),
        ):
            metrics[name] = mean_metric(np.where(rows, called, np.nan), bounded=True)
    return [
        audit(
            estimator,
            data.groups,
            attributes,
            metric=name,
            better="low" if name == "false_positive_rate" else "high",
            confidence=confidence,
            secondary_below=secondary_below,
        )
        for name, estimator in metrics.items()
    ]


def classification_table(
    predictions: pd.DataFrame,
    table: pd.DataFrame,
    attributes: Levels,
    *,
    labels: Mapping[str, Any],
    thresholds: Mapping[str, float] | None = None,
    confidence: float = 0.95,
    bootstrap: int = 400,
    seed: int = 0,
) -> pd.DataFrame:
    """Metrics of every condition, overall, by level and summarised by attribute.

    Parameters
    ----------
    predictions : DataFrame
        image, subject, condition, truth, level, probability; truth and level are names, the
        order of levels is that of their first rows. A truth of "unknown" is left out.
    table : DataFrame
        image and a column of level names per attribute.
    attributes : mapping
        Attribute to level names.
    labels : mapping
        First columns, as {"dataset": ..., "source": ..., "method": ..., "seed": ...,
        "classifier": ...}.
    thresholds : mapping, optional
        Condition to the threshold for its second level, for conditions of two levels;
        0.5 where absent or NaN.
    confidence : float
    bootstrap : int
        Replicates (of subjects) behind the standard error of es_accuracy and es_auc.
    seed : int

    Returns
    -------
    DataFrame
        The labels, then condition, attribute, level, metric, n (subjects), value, low, high,
        note. Metrics: accuracy, auc, with two levels selection_rate, true_positive_rate and
        false_positive_rate; and per attribute (level "all") es_accuracy, es_auc, dpd, eod,
        dpd_as_released, eod_as_released, psd_mean and psd_max (of the AUC).
    """
    frames = []
    for condition in dict.fromkeys(predictions["condition"]):
        data = scored(predictions, table, condition, attributes, _cut(thresholds, condition))
        audits = classification_audits(data, attributes, confidence)
        frames.append(_rows_of(data, audits, attributes, confidence, bootstrap, seed, condition))
    found = pd.concat(frames, ignore_index=True)[list(COLUMNS)]
    return labelled(found, labels)


def classification_contrasts(
    predictions: pd.DataFrame,
    table: pd.DataFrame,
    attributes: Levels,
    *,
    labels: Mapping[str, Any],
    thresholds: Mapping[str, float] | None = None,
    confidence: float = 0.95,
    secondary_below: int = 80,
) -> pd.DataFrame:
    """Signed contrasts between levels of the same metrics, with p and adjusted p.

    Parameters are those of :func:`classification_table`. The columns are those of
    :func:`fairness.contrast_table` after the labels and ``condition``.
    """
    audits = []
    for condition in dict.fromkeys(predictions["condition"]):
        data = scored(predictions, table, condition, attributes, _cut(thresholds, condition))
        own = {**labels, "condition": condition}
        for one in classification_audits(data, attributes, confidence, secondary_below):
            audits.append((own, one))
    return contrast_table(audits)


def _cut(thresholds: Mapping[str, float] | None, condition: str) -> float:
    cut = float((thresholds or {}).get(condition, 0.5))
    return cut if np.isfinite(cut) else 0.5


def _rows_of(
    data: Scored,
    audits: Sequence[Audit],
    attributes: Levels,
    confidence: float,
    bootstrap: int,
    seed: int,
    condition: str,
) -> pd.DataFrame:
    """All rows of one condition."""
    weights = multiplicities(data.groups.unit, bootstrap, seed)
    frames = [one.by_group for one in audits]
    for one in audits[:2]:  # accuracy and AUC
        scaled = one.summary[one.summary["metric"] == f"es_{one.metric}"].copy()
        errors = [es_error(data, one, a, attributes[a], weights)
                  for a in scaled["attribute"]]  # fmt: skip
        reach = np.array(errors) * stats.t.ppf((1 + confidence) / 2, max(one.overall.n - 1, 1))
        scaled["low"], scaled["high"] = scaled["value"] - reach, scaled["value"] + reach
        scaled["note"] = scaled["note"].str.replace(GAP_NOTE, SE_NOTE)
        frames.append(scaled)
    spread = audits[1].summary
    spread = spread[spread["metric"].isin(["auc_psd_mean", "auc_psd_max"])]
    frames.append(spread.assign(metric=spread["metric"].str.removeprefix("auc_")))
    n = audits[0].overall.n
    gaps = [row for name, levels in attributes.items() for row in _gaps(data, name, levels, n)]
    frames.append(pd.DataFrame(gaps))
    return pd.concat(frames, ignore_index=True).assign(condition=condition)


def es_error(
    data: Scored, one: Audit, attribute: str, levels: Sequence[str], weights: Floats
) -> float:
    """Standard error over replicates of an equity-scaled accuracy or AUC.

    Parameters
    ----------
    data : Scored
    one : Audit
        Of the accuracy or the AUC; levels that it could not estimate stay out.
    attribute : str
    levels : sequence of str
    weights : float64 [R, N]
        From :func:`estimators.multiplicities`.
    """
    usable = [lv for lv in levels if np.isfinite(one.estimates[(attribute, lv)].value)]
    if len(usable) < 2:
        return float("nan")
    everyone = np.ones(len(data.truth), dtype=bool)
    rows = [data.groups.column(attribute, level)[data.groups.unit] for level in usable]
    overall, *by_group = [
        _resampled(data, one.metric, chosen, weights) for chosen in (everyone, *rows)
    ]
    values = parity.equity_scaled(overall, np.stack(by_group, axis=1), "high")
    values = values[np.isfinite(np.stack(by_group, axis=1)).all(axis=1) & np.isfinite(overall)]
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def _resampled(data: Scored, metric: str, chosen: Bools, weights: Floats) -> Floats:  # [R]
    """Accuracy or AUC of some rows, per replicate."""
    if metric == "auc":
        return parity.weighted_auc(data.truth[chosen], data.scores[chosen], weights[:, chosen])
    correct = (data.truth == data.predicted)[chosen].astype(np.float64)
    return parity.weighted_mean(correct, weights[:, chosen])


def _gaps(data: Scored, attribute: str, levels: Sequence[str], n: int) -> list[Row]:
    """DPD and EOD in the right form without tiny levels, and as released with all of them."""
    truth, predicted, classes = data.truth, data.predicted, data.scores.shape[1]
    codes = data.codes(attribute, levels)
    sizes = np.array([data.groups.column(attribute, level).sum() for level in levels])
    left_out = [level for level, size in zip(levels, sizes, strict=True) if size < MIN_UNITS]
    kept = sizes[codes] >= MIN_UNITS
    own, old = GAP_NOTE, f"as released; {GAP_NOTE}"
    if left_out:
        own += f"; without {', '.join(left_out)} (n < {MIN_UNITS})"
    if classes > 2:
        old = f"as released, truth and prediction swapped; {GAP_NOTE}"
    rows = (
        ("dpd", parity.dpd(predicted[kept], codes[kept], classes), own),
        ("eod", parity.eod(truth[kept], predicted[kept], codes[kept], classes), own),
        ("dpd_as_released", parity.dpd_as_released(truth, predicted, codes, classes), old),
        ("eod_as_released", parity.eod_as_released(truth, predicted, codes, classes), old),
    )
    blank = {"attribute": attribute, "level": "all", "n": n, "low": np.nan, "high": np.nan}
    missing = "not estimable: fewer than two levels with a rate"
    return [
        {**blank, "metric": name, "value": value, "note": note if np.isfinite(value) else missing}
        for name, value, note in rows
    ]
