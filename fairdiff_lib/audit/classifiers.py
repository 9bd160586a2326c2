"""One condition's predictions as arrays, and the audit of every metric that they allow.

Input are tidy predictions (a row per image, condition and level), joined with the attributes
of their images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from fairdiff_lib.audit import parity, reliability
from fairdiff_lib.audit.audit import Audit, Estimator, audit, mean_metric
from fairdiff_lib.audit.contrasts import EXPLORATORY
from fairdiff_lib.audit.estimate import (
    Bools,
    Estimate,
    Floats,
    Groups,
    Ints,
    Levels,
    combine,
    group_units,
    not_estimable,
)
from fairdiff_lib.audit.estimators import bootstrap_bca, macro_auc
from fairdiff_lib.classify.predictions import PREDICTION_COLUMNS, UNKNOWN
from fairdiff_lib.settings.errors import InputError

LOW_IS_BETTER = ("brier", "ece", "fnr", "false_positive_rate")


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
        probability outside [0, 1], or the same probabilities for every image.
    """
    missing = [name for name in PREDICTION_COLUMNS if name not in predictions]
    missing += ["image"] * ("image" not in table)
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
    if len(scores) > 1 and (scores == scores[0]).all():
        raise InputError(
            f"predictions of {condition}: all {len(scores)} images have the same probabilities; "
            "expected a classifier that tells images apart (was it trained?)"
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


# -- metrics and their audits ----------------------------------------------------------------


def classification_metrics(
    data: Scored, bootstrap: int = 400, seed: int = 0
) -> dict[str, Estimator]:
    """Estimator of every metric by name; with two classes also rates and calibration.

    Parameters
    ----------
    data : Scored
    bootstrap, seed : int
        Replicates (of subjects) behind the intervals of ece, and of auc for several classes;
        0 gives auc the t-interval of its influence values.
    """
    truth, scores, called = data.truth, data.scores, (data.predicted == 1).astype(np.float64)
    correct = (truth == data.predicted).astype(np.float64)
    metrics = {
        "accuracy": mean_metric(correct, bounded=True),
        "auc": _auc_metric(data, bootstrap, seed),
        "brier": reliability.brier_metric(truth, scores),
        "ece": reliability.ece_metric(truth, scores, replicates=bootstrap, seed=seed),
    }
    if scores.shape[1] > 2:
        return metrics
    positives, negatives = (np.where(truth == k, called, np.nan) for k in (1, 0))
    return metrics | {
        "calibration_slope": reliability.calibration_slope_metric(truth, scores),
        "calibration_intercept": reliability.calibration_intercept_metric(truth, scores),
        "fnr": reliability.fnr_metric(truth, data.predicted),
        "selection_rate": mean_metric(called, bounded=True),
        "true_positive_rate": mean_metric(positives, bounded=True),
        "false_positive_rate": mean_metric(negatives, bounded=True),
    }


def _auc_metric(data: Scored, bootstrap: int, seed: int) -> Estimator:
    """AUC after DeLong; for several classes a group's own interval is BCa's."""

    def resampled(rows: Ints, times: Floats) -> Floats:
        return parity.weighted_auc(data.truth[rows], data.scores[rows], times)

    def one(unit: Ints, member: Bools) -> Estimate:
        exact = macro_auc(data.truth, data.scores, unit, member)
        if data.scores.shape[1] == 2 or not bootstrap or not exact.standard_error > 0:
            return exact
        drawn = bootstrap_bca(resampled, unit, member, bootstrap, seed)
        return replace(exact, limits=drawn.limits, note=drawn.note)

    return lambda groups: [one(groups.unit, member) for member in groups.members.T]


def classification_audits(
    data: Scored,
    attributes: Levels,
    confidence: float = 0.95,
    secondary_below: int = 80,
    *,
    names: Sequence[str] = (),
    roles: Mapping[str, str] | None = None,
    bootstrap: int = 400,
    seed: int = 0,
) -> dict[str, Audit]:
    """Audit of every metric of one condition, by name.

    AUC is DeLong's; selection and false-positive rates make DPD and EOD testable as signed
    contrasts.

    Parameters
    ----------
    data : Scored
    attributes, confidence, secondary_below
        As for ``fairness.audit``.
    names : sequence of str
        Metrics that are wanted, of those that the condition has; all without a name.
    roles : mapping, optional
        Metric to the role of its contrasts; exploratory where it isn't named.
    bootstrap, seed : int
    """
    metrics = classification_metrics(data, bootstrap, seed)
    return {
        name: audit(
            estimator,
            data.groups,
            attributes,
            metric=name,
            better="low" if name in LOW_IS_BETTER else "high",
            confidence=confidence,
            secondary_below=secondary_below,
            role=(roles or {}).get(name, EXPLORATORY),
        )
        for name, estimator in metrics.items()
        if not names or name in names
    }


def es_estimate(one: Audit, attribute: str) -> Estimate:
    """Equity-scaled accuracy or AUC, M / (1 + sum_g |M_g - M|), by the delta method.

    Its influence values are those of M and of the levels, weighted by the derivatives; they
    know the subjects that M and M_g share. Where levels are equal the value lies below M by
    as much as chance moves them, and no interval mends that.

    Parameters
    ----------
    one : Audit
        Of a metric that is better when high; levels that it could not estimate stay out.
    attribute : str
    """
    whole = one.overall
    each = [one.estimates[attribute, level] for level in one.attributes[attribute]]
    each = [level for level in each if np.isfinite(level.value)]
    if len(each) < 2 or not np.isfinite(whole.value):
        return not_estimable(len(whole.influence), whole.n, "fewer than two levels with a value")
    away = np.array([level.value for level in each]) - whole.value
    share = 1 / (1 + np.abs(away).sum())
    slopes = -whole.value * share**2 * np.sign(away)  # of the levels
    mixed = combine([whole, *each], [share - slopes.sum(), *slopes])
    return replace(mixed, value=whole.value * share, n=whole.n, bounded=True)


def es_audit(one: Audit) -> Audit:
    """Equity-scaled accuracy or AUC of every attribute, as (attribute, "all")."""
    found = {(name, "all"): es_estimate(one, name) for name in one.attributes}
    return replace(one, metric=f"es_{one.metric}", estimates=found)
