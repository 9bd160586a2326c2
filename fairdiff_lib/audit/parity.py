"""Disparity summaries of a classifier or of any metric by group: pure functions of arrays.

Parity differences (DPD, EOD), equity scaling, and the spread of a metric over groups (PSD);
each resample is a vector of multiplicities. What was released instead is in ``released``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdiff_lib.audit.estimate import Bools, Floats, Ints
from fairdiff_lib.settings.errors import refuse_unknown


def predicted_class(scores: Floats, threshold: float = 0.5) -> Ints:
    """Class of each row: the likeliest; for two classes the second at or above ``threshold``.

    Parameters
    ----------
    scores : float64 [N, K]
    threshold : float
        On the second column; two classes only.
    """
    if scores.shape[1] == 2:
        return (scores[:, 1] >= threshold).astype(np.int64)
    return np.asarray(scores.argmax(axis=1), dtype=np.int64)


def dpd(predicted: Ints, codes: Ints, classes: int) -> float:
    """Demographic parity difference: largest gap between groups in the rate of a prediction.

    Two classes: of the second. More: averaged over the classes, one against the rest.

    Parameters
    ----------
    predicted : int64 [N]
        Class index.
    codes : int64 [N]
        Group of each row.
    classes : int
    """
    return float(np.mean([_gap(predicted == k, codes) for k in _chosen(classes)]))


def eod(truth: Ints, predicted: Ints, codes: Ints, classes: int) -> float:
    """Equalised odds difference: the larger of the gaps in true and in false positive rate.

    Two classes: of the second. More: averaged over the classes, one against the rest. A group
    without a case (or without a non-case) is left out of that rate's gap, not counted as 0.
    NaN where fewer than two groups have a rate.
    """
    gaps = []
    for k in _chosen(classes):
        both = [_gap((predicted == k)[s], codes[s]) for s in (truth == k, truth != k)]
        gaps.append(max(both))
    return float(np.mean(gaps)) if np.isfinite(gaps).all() else float("nan")


def _chosen(classes: int) -> range:
    return range(1, 2) if classes == 2 else range(classes)


def _gap(event: Bools, codes: Ints) -> float:
    """Largest minus smallest rate over the groups that are present; NaN with fewer than two."""
    counts = np.bincount(codes) if len(codes) else np.zeros(0, dtype=np.int64)
    present = counts > 0
    if present.sum() < 2:
        return float("nan")
    rates = np.bincount(codes, weights=event)[present] / counts[present]
    return float(np.ptp(rates))


def equity_scaled(overall: Floats, by_group: Floats, better: str) -> Floats:
    """Value after a penalty for the summed distances of the groups from it.

    Higher is better: M / (1 + sum_g |M_g - M|). Lower is better:
    M (1 + sum_g |M_g - M| / M) = M + sum_g |M_g - M|, defined for M <= 0 as well.

    Parameters
    ----------
    overall : float64 [...]
    by_group : float64 [..., G]
        NaN groups are left out.
    better : str
        ``"high"`` or ``"low"``.
    """
    refuse_unknown("direction", better, ("high", "low"))
    away = np.nansum(np.abs(by_group - overall[..., None]), axis=-1)
    scaled = overall / (1 + away) if better == "high" else overall + away
    return np.asarray(scaled)


def psd(overall: float, by_group: Floats) -> tuple[float, float]:
    """Standard deviation over groups and range over groups, both relative to the overall value.

    NaN groups are left out (the released code enters -1); NaN where the overall value is not
    positive or fewer than two groups have a value.
    """
    known = by_group[np.isfinite(by_group)]
    if len(known) < 2 or not overall > 0:
        return float("nan"), float("nan")
    return float(known.std() / overall), float(np.ptp(known) / overall)


def weighted_mean(values: Floats, weights: Floats) -> Floats:  # [N], [R, N] => [R]
    """Mean per replicate; NaN for a replicate without a row."""
    total = weights.sum(axis=1)
    rate = np.divide(weights @ values, total, out=np.full(len(total), np.nan), where=total > 0)
    return np.asarray(rate)


def weighted_auc(truth: NDArray[Any], scores: Floats, weights: Floats) -> Floats:
    """Macro one-against-rest AUC per replicate (two classes: of the second), ties counted half.

    Parameters
    ----------
    truth : int64 [N]
    scores : float64 [N, K]
    weights : float64 [R, N]
        Multiplicity of each row.

    Returns
    -------
    float64 [R]
        NaN for a replicate that lacks a class.
    """
    columns = _chosen(scores.shape[1])
    each = [_weighted_auc(truth == k, scores[:, k], weights) for k in columns]
    return np.asarray(np.mean(each, axis=0))


def _weighted_auc(truth: Bools, score: Floats, weights: Floats) -> Floats:
    if truth.all() or not truth.any():
        return np.full(len(weights), np.nan)
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    drawn = weights[:, order]
    positive = np.add.reduceat(drawn * truth[order], starts, axis=1)  # [R, distinct scores]
    negative = np.add.reduceat(drawn * ~truth[order], starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    wins = np.sum(positive * below, axis=1)
    return np.asarray(np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0))
