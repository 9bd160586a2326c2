"""Downstream fairness: what classifiers do on real test images, by group.

Input are tidy predictions (a row per image, condition and level); output are tidy tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.audit import parity, released
from fairdiff_lib.audit.audit import Audit, Labelled, contrast_table, differences, labelled
from fairdiff_lib.audit.classifiers import Scored, classification_audits, es_estimate, scored
from fairdiff_lib.audit.contrasts import GAP_NOTE, PRIMARY, control_discoveries
from fairdiff_lib.audit.equity import equity_rows
from fairdiff_lib.audit.estimate import MIN_UNITS, Levels
from fairdiff_lib.audit.worst import worst_rows

COLUMNS = (
    "condition", "attribute", "level", "metric", "n", "value", "low", "high", "note",
)  # fmt: skip
ES_NOTE = "description: too low where levels are equal, as chance alone moves them apart"
CONTRASTED = ("auc", "accuracy", "brier", "fnr", "selection_rate", "false_positive_rate")
Row = dict[str, Any]


# -- tables ----------------------------------------------------------------------------------


def classification_table(
    predictions: pd.DataFrame,
    table: pd.DataFrame,
    attributes: Levels,
    *,
    labels: Mapping[str, Any],
    thresholds: Mapping[str, float] | None = None,
    watched: pd.DataFrame | None = None,
    mismatched: pd.DataFrame | None = None,
    metrics: Sequence[str] = (),
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
    watched : DataFrame, optional
        ``classify.Classifier.watched`` of the test images, for what choosing the step by
        them would have claimed (fault E4).
    mismatched : DataFrame, optional
        Predictions of the same images, prepared otherwise than the training images (fault E6).
    metrics : sequence of str
        Of those that are audited by group, which; with accuracy and auc, which the summaries by
        attribute rest on. All without a name.
    confidence : float
    bootstrap : int
        Replicates (of subjects) behind the intervals of ece, and of auc for several levels.
    seed : int

    Returns
    -------
    DataFrame
        The labels, then condition, attribute, level, metric, n (subjects), value, low, high,
        note. Metrics: accuracy, auc, brier, ece; with two levels calibration_slope,
        calibration_intercept, fnr, selection_rate, true_positive_rate, false_positive_rate;
        per attribute (level "all") es_accuracy, es_auc, dpd, eod, dpd_as_released,
        eod_as_released, psd_mean and psd_max (of the AUC), fnr_gap, fnr_gap_by_chance, and
        fnr_worst at its level; with ``watched`` the two of
        ``released.best_test_epoch_as_released``; with ``mismatched`` auc_mismatched_as_released
        of every level, and auc_lost_by_mismatch_as_released overall.
    """
    frames = []
    for condition in dict.fromkeys(predictions["condition"]):
        data = scored(predictions, table, condition, attributes, _cut(thresholds, condition))
        audits = classification_audits(
            data, attributes, confidence, names=metrics, bootstrap=bootstrap, seed=seed
        )
        parts = [one.by_group for one in audits.values()]
        parts += [_es_rows(audits[name]) for name in ("accuracy", "auc")]
        parts += [_spread_rows(audits["auc"]), _gap_rows(data, attributes)]
        if "fnr" in audits:
            parts.append(worst_rows(audits["fnr"]))
        if watched is not None:
            own = watched[watched["condition"] == condition]
            parts.append(_watched_rows(own, len(data.groups.members)))
        if mismatched is not None:
            other = scored(mismatched, table, condition, attributes)
            parts.append(_mismatch_rows(audits["auc"], other, confidence))
        frames.append(pd.concat(parts, ignore_index=True).assign(condition=condition))
    found = pd.concat(frames, ignore_index=True)[list(COLUMNS)]
    return labelled(found, labels)


def contrasted_audits(
    predictions: pd.DataFrame,
    table: pd.DataFrame,
    attributes: Levels,
    *,
    labels: Mapping[str, Any],
    thresholds: Mapping[str, float] | None = None,
    primary: tuple[str, str] | None = None,
    confidence: float = 0.95,
    secondary_below: int = 80,
) -> list[tuple[Mapping[str, Any], Audit]]:
    """Audits of ``CONTRASTED`` metrics of every condition, each with its labels.

    Parameters
    ----------
    predictions, table, attributes, labels, thresholds, confidence
        As for :func:`classification_table`.
    primary : (condition, metric), optional
        The endpoint that was declared beforehand, if one was; everything else is exploratory.
    secondary_below : int
        Levels with fewer subjects are not primary.
    """
    audits: list[tuple[Mapping[str, Any], Audit]] = []
    for condition in dict.fromkeys(predictions["condition"]):
        data = scored(predictions, table, condition, attributes, _cut(thresholds, condition))
        roles = {primary[1]: PRIMARY} if primary and primary[0] == condition else None
        found = classification_audits(
            data, attributes, confidence, secondary_below, names=CONTRASTED, roles=roles,
            bootstrap=0,  # contrasts rest on influence values
        )  # fmt: skip
        audits += [({**labels, "condition": condition}, one) for one in found.values()]
    return audits


def classification_contrasts(audits: Labelled) -> pd.DataFrame:
    """Signed contrasts between levels of one classifier, with p and adjusted p.

    Parameters
    ----------
    audits : sequence of (labels, Audit)
        Of one classifier and all its conditions, as :func:`contrasted_audits` makes.

    Returns
    -------
    DataFrame
        The labels, then the columns of ``fairness.contrast_table``. The adjusted p of the primary
        endpoint is that of max-|t|; of all that is exploratory, over all conditions, attributes
        and metrics, it controls the false discovery rate.
    """
    return control_discoveries(contrast_table(audits))


def encoder_fairness(
    predictions: pd.DataFrame,
    table: pd.DataFrame,
    attributes: Levels,
    *,
    labels: Mapping[str, Any],
    confidence: float = 0.95,
    bootstrap: int = 400,
) -> pd.DataFrame:
    """How well the audit's own encoder reads real test images, by group.

    An encoder that sees less in one group's images sees less of what is wrong with them too:
    this stands beside every table of feature distances.

    Parameters
    ----------
    predictions : DataFrame
        ``predictions.predictions_table`` of the encoder on the real test images.
    table, attributes, labels, confidence, bootstrap
        As for :func:`classification_table`.

    Returns
    -------
    DataFrame
        The labels, then condition, attribute, level, metric (encoder_accuracy, encoder_auc),
        n, value, low, high, note.
    """
    frames = []
    for condition in dict.fromkeys(predictions["condition"]):
        data = scored(predictions, table, condition, attributes)
        audits = classification_audits(
            data, attributes, confidence, names=("accuracy", "auc"), bootstrap=bootstrap
        )
        frames += [one.by_group.assign(condition=condition) for one in audits.values()]
    found = pd.concat(frames, ignore_index=True)[list(COLUMNS)]
    return labelled(found.assign(metric="encoder_" + found["metric"]), labels)


def _cut(thresholds: Mapping[str, float] | None, condition: str) -> float:
    cut = float((thresholds or {}).get(condition, 0.5))
    return cut if np.isfinite(cut) else 0.5


# -- summaries by attribute ------------------------------------------------------------------


def _summary(one: Audit) -> pd.DataFrame:
    return equity_rows(one.by_group, one.attributes, {one.metric: one.design.better})


def _es_rows(one: Audit) -> pd.DataFrame:
    """Equity-scaled accuracy or AUC of each attribute, with its interval."""
    rows = _records(_summary(one), f"es_{one.metric}")
    for row in rows:
        found = es_estimate(one, row["attribute"])
        row["low"], row["high"] = found.interval(one.design.confidence)
        notes = [row["note"].replace(GAP_NOTE, ES_NOTE), found.note]
        if np.isfinite(found.value):
            row["note"] = "; ".join(note for note in notes if note)
    return pd.DataFrame(rows)


def _records(table: pd.DataFrame, *metrics: str) -> list[Row]:
    """Rows of the named metrics."""
    records = table[table["metric"].isin(metrics)].to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in records]


def _spread_rows(auc: Audit) -> pd.DataFrame:
    """PSD of the AUC, under the names of the released code."""
    rows = _summary(auc)
    rows = rows[rows["metric"].isin(["auc_psd_mean", "auc_psd_max"])]
    return rows.assign(metric=rows["metric"].str.removeprefix("auc_"))


def _watched_rows(watched: pd.DataFrame, n: int) -> pd.DataFrame:
    """Rows of the epoch that is best on the test images, overall."""
    found = released.best_test_epoch_as_released(watched)
    return found.assign(attribute="overall", level="all", n=n, low=np.nan, high=np.nan)


def _mismatch_rows(auc: Audit, other: Scored, confidence: float) -> pd.DataFrame:
    """AUC by level on test images prepared as released, and what is lost against the matched."""
    names, own = ("auc",), auc.attributes
    found = classification_audits(other, own, confidence, names=names, bootstrap=0)["auc"]
    rows = found.by_group.assign(metric=released.MISMATCHED)
    rows["note"] = [note or released.MISMATCH_NOTE for note in rows["note"]]
    gap = differences(auc, found)["overall", "all"]
    low, high = gap.interval(confidence)
    lost = {**rows.iloc[0].to_dict(), "metric": released.LOST, "note": released.LOST_NOTE}
    lost |= {"value": gap.value, "low": low, "high": high}
    return pd.concat([rows, pd.DataFrame([lost])], ignore_index=True)


def _gap_rows(data: Scored, attributes: Levels) -> pd.DataFrame:
    """DPD and EOD of every attribute."""
    return pd.DataFrame([row for name in attributes for row in _gaps(data, name, attributes[name])])


def _gaps(data: Scored, attribute: str, levels: Sequence[str]) -> list[Row]:
    """DPD and EOD in the right form without tiny levels, and as released with all of them."""
    truth, predicted, classes = data.truth, data.predicted, data.scores.shape[1]
    codes, n = data.codes(attribute, levels), len(data.groups.members)
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
        ("dpd_as_released", released.dpd_as_released(truth, predicted, codes, classes), old),
        ("eod_as_released", released.eod_as_released(truth, predicted, codes, classes), old),
    )
    blank = {"attribute": attribute, "level": "all", "n": n, "low": np.nan, "high": np.nan}
    missing = "not estimable: fewer than two levels with a rate"
    return [
        {**blank, "metric": name, "value": value, "note": note if np.isfinite(value) else missing}
        for name, value, note in rows
    ]
