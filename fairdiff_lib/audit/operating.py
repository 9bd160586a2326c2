"""At equal sensitivity, who pays? A threshold per group, chosen on validation.

Groups whose cases are found equally often can still differ in how many healthy people are
alarmed for it. The rates are estimators for ``fairness.audit``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from fairdiff_lib.audit.audit import Estimator
from fairdiff_lib.audit.classifiers import Scored
from fairdiff_lib.audit.estimate import (
    MIN_UNITS,
    OVERALL,
    Bools,
    Estimate,
    Floats,
    Groups,
    not_estimable,
)
from fairdiff_lib.audit.estimators import mean_of_rows, multiplicities
from fairdiff_lib.settings.errors import InputError

TARGET = 0.8  # sensitivity, fixed beforehand: the same for every group and every classifier
AT_EQUAL = "_at_equal_sensitivity"
Key = tuple[str, str]


@dataclass(frozen=True)
class Threshold:
    """A group's threshold, and how far it would move with other validation subjects.

    Attributes
    ----------
    value : float
        NaN where it can't be chosen; ``note`` then says why.
    drawn : float64 [R]
        The threshold of every bootstrap sample of the group's validation cases.
    n : int
        Validation subjects with the condition.
    note : str
    """

    value: float
    drawn: Floats
    n: int
    note: str = ""


Thresholds = Mapping[Key, Threshold]


def threshold_at(cases: Floats, target: float) -> float:
    """Threshold that a share ``target`` of further cases reaches, on average.

    The quantile of Weibull's plotting positions, k / (n + 1). The share of *these* cases, k / n,
    would promise more than it keeps, and most in the smallest group: 12 of 15 cases above a
    threshold are 75% of new ones.

    Parameters
    ----------
    cases : float64 [n]
        Scores of those who have the condition.
    target : float
    """
    return float(np.quantile(cases, 1 - target, method="weibull"))


def group_thresholds(
    validation: Scored, target: float = TARGET, replicates: int = 400, seed: int = 0
) -> dict[Key, Threshold]:
    """Threshold of every group of the validation set; ("overall", "all") has one for everybody.

    Raises
    ------
    InputError
        A condition of more than two levels, or a target that isn't between 0 and 1.
    """
    if validation.scores.shape[1] != 2:
        raise InputError(f"equal sensitivity: {validation.scores.shape[1]} classes; expected two")
    if not 0 < target < 1:
        raise InputError(
            f"equal sensitivity: target {target}; expected more than 0 and less than 1"
        )
    groups = validation.groups
    return {
        key: _threshold(validation, member, target, replicates, seed)
        for key, member in zip(groups.keys, groups.members.T, strict=True)
    }


def _threshold(data: Scored, member: Bools, target: float, replicates: int, seed: int) -> Threshold:
    unit = data.groups.unit
    rows = np.flatnonzero(member[unit] & (data.truth == 1))
    scores, n = data.scores[rows, 1], len(np.unique(unit[rows]))
    if n < MIN_UNITS:
        reason = f"fewer than {MIN_UNITS} validation subjects with the condition"
        return Threshold(float("nan"), np.zeros(0), n, reason)
    if not np.ptp(scores) > 0:
        return Threshold(float("nan"), np.zeros(0), n, "all validation scores equal")
    times = multiplicities(unit[rows], replicates, seed).astype(np.int64)
    drawn = [threshold_at(np.repeat(scores, own), target) for own in times]
    return Threshold(threshold_at(scores, target), np.array(drawn), n)


def equal_sensitivity_metrics(test: Scored, thresholds: Thresholds) -> dict[str, Estimator]:
    """False- and true-positive rate of test images, every group at its own threshold.

    The intervals know both sources of chance: the test subjects, and the validation subjects
    that chose the threshold (the standard deviation over a bootstrap of them, as one further
    influence value per group). The true-positive rate shows whether sensitivity carried over.

    Parameters
    ----------
    test : Scored
        Two classes.
    thresholds : mapping
        From :func:`group_thresholds`, with the groups that are asked for.
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
