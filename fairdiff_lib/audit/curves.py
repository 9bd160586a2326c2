"""What the pictures of classifiers show, as tidy rows: ROC, reliability and confusion by group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.audit.classifiers import Scored
from fairdiff_lib.audit.estimate import MIN_UNITS, Bools, Floats, Ints
from fairdiff_lib.audit.estimators import mean_of_rows, multiplicities
from fairdiff_lib.audit.reliability import BINS, believed
from fairdiff_lib.settings.errors import InputError

POINTS = 51  # false-positive rates at which a ROC curve is read
Row = dict[str, Any]


def _groups(data: Scored) -> Iterator[tuple[Row, Bools, Ints]]:
    """Every group: its name and subjects, its members, its rows."""
    for key, member in zip(data.groups.keys, data.groups.members.T, strict=True):
        rows = np.flatnonzero(member[data.groups.unit])
        n = len(np.unique(data.groups.unit[rows]))
        yield {"attribute": key[0], "level": key[1], "n": n}, member, rows


# -- ROC -------------------------------------------------------------------------------------


def roc_rows(
    data: Scored, replicates: int = 400, seed: int = 0, confidence: float = 0.95
) -> pd.DataFrame:
    """Sensitivity of every group at fixed false-positive rates, with a band.

    The band is pointwise, at each false-positive rate by itself: quantiles of a bootstrap over
    subjects. A whole curve leaves it more often.

    Parameters
    ----------
    data : Scored
        Two classes.
    replicates, seed : int
    confidence : float

    Returns
    -------
    DataFrame
        attribute, level, n (subjects), false_positive_rate, value, low, high, note. A group with
        fewer than ``MIN_UNITS`` subjects of either class has one row, NaN.

    Raises
    ------
    InputError
        More than two classes.
    """
    if data.scores.shape[1] != 2:
        raise InputError(f"ROC curve: {data.scores.shape[1]} classes; expected two")
    grid = np.linspace(0, 1, POINTS)
    tails = ((1 - confidence) / 2, (1 + confidence) / 2)
    parts: list[pd.DataFrame] = []
    for name, _, rows in _groups(data):
        truth, unit = data.truth[rows] == 1, data.groups.unit[rows]
        if min(len(np.unique(unit[truth == k])) for k in (True, False)) < MIN_UNITS:
            blank = dict.fromkeys(("false_positive_rate", "value", "low", "high"), np.nan)
            note = f"not estimable: fewer than {MIN_UNITS} subjects of a class"
            parts.append(pd.DataFrame([{**name, **blank, "note": note}]))
            continue
        times = np.vstack([np.ones(len(rows)), multiplicities(unit, replicates, seed)])
        curves = roc_at(truth, data.scores[rows, 1], times, grid)
        low, high = np.nanquantile(curves[1:], tails, axis=0)
        own = {"false_positive_rate": grid, "value": curves[0], "low": low, "high": high}
        parts.append(pd.DataFrame({**name, **own, "note": ""}))
    return pd.concat(parts, ignore_index=True)


def roc_at(truth: Bools, score: Floats, times: Floats, grid: Floats) -> Floats:
    """Sensitivity at given false-positive rates, linear between the points of the ROC curve.

    Parameters
    ----------
    truth : bool [n]
    score : float64 [n]
    times : float64 [R, n]
        How often each row counts in each replicate.
    grid : float64 [P]

    Returns
    -------
    float64 [R, P]
        NaN in a replicate that lacks a class.
    """
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    ends = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])  # of runs of equal scores
    drawn, positive = times[:, order], truth[order]
    hits, alarms = (np.cumsum(drawn * own, axis=1)[:, ends] for own in (positive, ~positive))
    found = np.full((len(times), len(grid)), np.nan)
    for r in range(len(times)):
        if hits[r, -1] > 0 and alarms[r, -1] > 0:
            x, y = np.r_[0, alarms[r] / alarms[r, -1]], np.r_[0, hits[r] / hits[r, -1]]
            at = np.clip(np.searchsorted(x, grid, side="right") - 1, 0, len(x) - 2)
            step = x[at + 1] - x[at]
            share = np.divide(grid - x[at], step, out=np.ones(len(grid)), where=step > 0)
            found[r] = y[at] + share * (y[at + 1] - y[at])
    return found


# -- reliability -----------------------------------------------------------------------------


def reliability_rows(data: Scored, bins: int = BINS // 2, confidence: float = 0.95) -> pd.DataFrame:
    """How often it came true against the mean probability, in bins of equal mass by group.

    Unlike the bins of ece, these are each group's own, as many as leave ``MIN_UNITS`` subjects
    in each, so that a small group has a few points instead of none.

    Returns
    -------
    DataFrame
        attribute, level, n (subjects of the bin), probability, value, low, high, note.
    """
    sure, right = believed(data.truth, data.scores)
    unit, parts = data.groups.unit, []
    for name, member, rows in _groups(data):
        count = int(np.clip(name["n"] // MIN_UNITS, 1, bins))
        shares = np.arange(1, count) / count
        cuts = np.unique(np.quantile(sure[rows], shares)) if len(rows) else np.zeros(0)
        place = np.searchsorted(cuts, sure, side="right")
        for k in np.unique(place[rows]) if len(rows) else [0]:
            found = mean_of_rows(np.where(place == k, right, np.nan), unit, member, bounded=True)
            low, high = found.interval(confidence)
            own = rows[place[rows] == k]
            x = float(sure[own].mean()) if len(own) else np.nan
            parts.append({**name, "n": found.n, "probability": x, "value": found.value,
                          "low": low, "high": high, "note": found.note})  # fmt: skip
    return pd.DataFrame(parts)


# -- confusion -------------------------------------------------------------------------------


def confusion_rows(data: Scored, classes: Sequence[str], confidence: float = 0.95) -> pd.DataFrame:
    """What each group's images of every class were called.

    Parameters
    ----------
    data : Scored
    classes : sequence of str
        Names, in the order of the scores' columns.

    Returns
    -------
    DataFrame
        attribute, level, truth, called, n (subjects of that truth), count (images), value (share
        of that truth, NaN below ``MIN_UNITS`` subjects), low, high, note.
    """
    if len(classes) != data.scores.shape[1]:
        raise InputError(f"confusion: {len(classes)} names for {data.scores.shape[1]} classes")
    parts: list[Row] = []
    for name, member, rows in _groups(data):
        for k, truth in enumerate(classes):
            for j, called in enumerate(classes):
                hit = np.where(data.truth == k, data.predicted == j, np.nan)
                found = mean_of_rows(hit, data.groups.unit, member, bounded=True)
                low, high = found.interval(confidence)
                parts.append({**name, "truth": truth, "called": called, "n": found.n,
                              "count": int(np.nansum(hit[rows])), "value": found.value,
                              "low": low, "high": high, "note": found.note})  # fmt: skip
    return pd.DataFrame(parts)
