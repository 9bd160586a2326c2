"""Who is harmed? Calibration and errors by group, at one and at equal sensitivity; their curves.

Groups whose cases are found equally often can still differ in how many healthy people are
alarmed for it: at equal sensitivity, who pays?
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.audit.audit import Audit, Estimator, exploratory_audits, worst_rows
from fairdiff_lib.audit.classifiers import (
    BINS,
    LOW_IS_BETTER,
    Scored,
    believed,
    classification_audits,
)
from fairdiff_lib.audit.contrasts import GROUP_COLUMNS
from fairdiff_lib.audit.estimate import (
    MIN_UNITS,
    OVERALL,
    Bools,
    Estimate,
    Floats,
    Groups,
    Ints,
    Levels,
    not_estimable,
)
from fairdiff_lib.audit.estimators import mean_of_rows, multiplicities
from fairdiff_lib.settings.errors import InputError

TARGET = 0.8  # sensitivity, fixed beforehand: the same for every group and every classifier
AT_EQUAL = "_at_equal_sensitivity"
Key = tuple[str, str]
BELIEVED = ("brier", "ece", "calibration_slope", "calibration_intercept")
SEEN = "auc"  # stands beside, as what is not seen can't be said well
HARMED = ("fnr", f"false_positive_rate{AT_EQUAL}")
MEANS = ("brier", *HARMED)  # means over subjects, whose gap by chance is known
CAN_BE_WORST = (*LOW_IS_BETTER, HARMED[1])  # slope and intercept have a best value in between
POINTS = 51  # false-positive rates at which a ROC curve is read
Row = dict[str, Any]


@dataclass(frozen=True)
class Threshold:
    """A group's threshold, and how far it would move with other validation subjects."""

    value: float  # NaN where it can't be chosen; the note then says why
    drawn: Floats  # [R]: of every bootstrap sample of the group's validation cases
    n: int  # validation subjects with the condition
    note: str = ""


Thresholds = Mapping[Key, Threshold]


def threshold_at(cases: Floats, target: float) -> float:
    """Threshold that a share ``target`` of further cases (scores [n]) reaches, on average.

    The quantile of Weibull's plotting positions, k / (n + 1). The share of *these* cases, k / n,
    would promise more than it keeps, and most in the smallest group: 12 of 15 cases above a
    threshold are 75% of new ones.
    """
    return float(np.quantile(cases, 1 - target, method="weibull"))


def group_thresholds(
    validation: Scored, target: float = TARGET, replicates: int = 400
) -> dict[Key, Threshold]:
    """Threshold of every group of the validation set; ("overall", "all"): one for everybody."""
    if validation.scores.shape[1] != 2:
        raise InputError(f"equal sensitivity: {validation.scores.shape[1]} classes; expected two")
    if not 0 < target < 1:
        raise InputError(
            f"equal sensitivity: target {target}; expected more than 0 and less than 1"
        )
    groups = validation.groups
    return {
        key: _threshold(validation, member, target, replicates)
        for key, member in zip(groups.keys, groups.members.T, strict=True)
    }


def _threshold(data: Scored, member: Bools, target: float, replicates: int) -> Threshold:
    unit = data.groups.unit
    rows = np.flatnonzero(member[unit] & (data.truth == 1))
    scores, n = data.scores[rows, 1], len(np.unique(unit[rows]))
    if n < MIN_UNITS:
        reason = f"fewer than {MIN_UNITS} validation subjects with the condition"
        return Threshold(float("nan"), np.zeros(0), n, reason)
    if not np.ptp(scores) > 0:
        return Threshold(float("nan"), np.zeros(0), n, "all validation scores equal")
    times = multiplicities(unit[rows], replicates, 0).astype(np.int64)
    drawn = [threshold_at(np.repeat(scores, own), target) for own in times]
    return Threshold(threshold_at(scores, target), np.array(drawn), n)


def equal_sensitivity_metrics(test: Scored, thresholds: Thresholds) -> dict[str, Estimator]:
    """False- and true-positive rate of test images (two classes), every group at its own threshold.

    The intervals know both sources of chance: the test subjects, and the validation subjects that
    chose the threshold (the standard deviation over a bootstrap of them, as one further influence
    value per group). The true-positive rate shows whether sensitivity carried over.
    """

    def metric(positive: bool) -> Estimator:
        return lambda groups: [
            _rate(test, groups, key, thresholds, positive) for key in groups.keys
        ]

    rates = {"false_positive_rate": False, "true_positive_rate": True}
    return {f"{name}{AT_EQUAL}": metric(positive) for name, positive in rates.items()}


def _rate(
    test: Scored, groups: Groups, key: Key, thresholds: Thresholds, positive: bool
) -> Estimate:
    """Share of a class at or above the group's threshold."""
    if key not in thresholds:
        raise InputError(f"equal sensitivity: no threshold for {key[0]} {key[1]!r}")
    at, column = thresholds[key], groups.keys.index(key)
    member, extra = groups.members[:, column], np.zeros(len(groups.keys))
    units = len(member) + len(extra)
    score, own = test.scores[:, 1], test.truth == int(positive)
    base = mean_of_rows(np.where(own, score >= at.value, np.nan), groups.unit, member, bounded=True)
    if not np.isfinite(at.value):
        return not_estimable(units, base.n, at.note)
    if not np.isfinite(base.value):
        kind = "with" if positive else "without"
        reason = f"fewer than {MIN_UNITS} test subjects {kind} the condition"
        return not_estimable(units, base.n, reason)
    chosen = score[own & member[groups.unit]]
    rates = (chosen >= at.drawn[:, None]).mean(axis=1)
    extra[column] = rates.std(ddof=1) if len(rates) > 1 else 0.0
    influence = np.concatenate([base.influence, extra])
    note = base.note
    if key == OVERALL:
        note = "; ".join(part for part in (note, "one threshold for everybody") if part)
    return replace(base, influence=influence, df=min(base.df, at.n - 1.0), note=note)


def harm_audits(
    test: Scored, thresholds: Thresholds | None, attributes: Levels, *, bootstrap: int = 400,
    **sizes: Any,
) -> dict[str, Audit]:  # fmt: skip
    """Audits of calibration and harm of one condition, by metric; all exploratory.

    auc, brier, ece; with two classes also calibration_slope, calibration_intercept and fnr (at the
    validation set's threshold); with ``thresholds`` also the rates of
    :func:`equal_sensitivity_metrics`.
    """
    names = (SEEN, *BELIEVED, *HARMED)
    found = classification_audits(test, attributes, names=names, bootstrap=bootstrap, **sizes)
    rates = equal_sensitivity_metrics(test, thresholds) if thresholds else {}
    return found | exploratory_audits(rates, test.groups, attributes, CAN_BE_WORST, **sizes)


def harm_table(audits: Mapping[str, Audit], thresholds: Thresholds | None = None) -> pd.DataFrame:
    """Every metric by group, its gap, its worst level, and the thresholds: ``GROUP_COLUMNS``."""
    parts = []
    for name, one in audits.items():
        parts.append(one.by_group)
        if name in CAN_BE_WORST:
            parts.append(worst_rows(one, by_chance=name in MEANS))
    if thresholds:
        parts.append(_threshold_rows(thresholds))
    return pd.concat(parts, ignore_index=True)[list(GROUP_COLUMNS)]


def _threshold_rows(thresholds: Thresholds) -> pd.DataFrame:
    rows = [
        (*key, f"threshold{AT_EQUAL}", one.n, one.value, np.nan, np.nan,
         f"not estimable: {one.note}" if one.note else "chosen on validation")
        for key, one in thresholds.items()
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(GROUP_COLUMNS))


def _groups(data: Scored) -> Iterator[tuple[Row, Bools, Ints]]:
    """Every group: its name and subjects, its members, its rows."""
    for key, member in zip(data.groups.keys, data.groups.members.T, strict=True):
        rows = np.flatnonzero(member[data.groups.unit])
        n = len(np.unique(data.groups.unit[rows]))
        yield {"attribute": key[0], "level": key[1], "n": n}, member, rows


# -- ROC -------------------------------------------------------------------------------------


def roc_rows(data: Scored, replicates: int = 400, confidence: float = 0.95) -> pd.DataFrame:
    """Sensitivity of every group at ``POINTS`` false-positive rates, with a band; two classes only.

    The band is pointwise, at each false-positive rate by itself: quantiles of a bootstrap over
    subjects. A whole curve leaves it more often. A group with fewer than ``MIN_UNITS`` subjects of
    either class has one row, NaN.
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
        times = np.vstack([np.ones(len(rows)), multiplicities(unit, replicates, 0)])
        curves = roc_at(truth, data.scores[rows, 1], times, grid)
        low, high = np.nanquantile(curves[1:], tails, axis=0)
        own = {"false_positive_rate": grid, "value": curves[0], "low": low, "high": high}
        parts.append(pd.DataFrame({**name, **own, "note": ""}))
    return pd.concat(parts, ignore_index=True)


def roc_at(truth: Bools, score: Floats, times: Floats, grid: Floats) -> Floats:
    """Sensitivity at false-positive rates [P], linear between the ROC curve's points, of truth and
    score [n], multiplicities [R, n]: [R, P], NaN in a replicate that lacks a class.
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


def reliability_rows(data: Scored, confidence: float = 0.95) -> pd.DataFrame:
    """How often it came true against the mean probability, in bins of equal mass by group.

    Unlike the bins of ece, these are each group's own, half as many or as few as leave
    ``MIN_UNITS`` subjects in each, so that a small group has a few points instead of none.
    """
    sure, right = believed(data.truth, data.scores)
    unit, parts = data.groups.unit, []
    for name, member, rows in _groups(data):
        count = int(np.clip(name["n"] // MIN_UNITS, 1, BINS // 2))
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
    """What each group's images of every class were called; ``value``: share of that truth."""
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
