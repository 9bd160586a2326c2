"""Downstream fairness: what classifiers do on real images, by group, and its audit.

Input are tidy predictions (a row per image, condition and level), joined with the attributes
of their images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, special
from statsmodels.discrete.discrete_model import Logit

from fairdiff_lib.audit import released
from fairdiff_lib.audit.audit import (
    Audit,
    Estimator,
    Labelled,
    contrast_table,
    differences,
    each_group,
    exploratory_audits,
    labelled,
    mean_metric,
    worst_rows,
)
from fairdiff_lib.audit.contrasts import GAP_NOTE, control_discoveries, dpd, eod, equity_rows
from fairdiff_lib.audit.estimate import (
    MIN_UNITS,
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
from fairdiff_lib.audit.estimators import bootstrap_bca, macro_auc, mean_of_rows, weighted_auc
from fairdiff_lib.settings.errors import InputError

UNKNOWN = "unknown"  # truth that nobody knows
PREDICTION_COLUMNS = ("image", "subject", "condition", "truth", "level", "probability")
LOW_IS_BETTER = ("brier", "ece", "fnr", "false_positive_rate")
COLUMNS = (
    "condition", "attribute", "level", "metric", "n", "value", "low", "high", "note",
)  # fmt: skip
ES_NOTE = "description: too low where levels are equal, as chance alone moves them apart"
CONTRASTED = ("auc", "accuracy", "brier", "fnr", "selection_rate", "false_positive_rate")
Row = dict[str, Any]


def predicted_class(scores: Floats, threshold: float = 0.5) -> Ints:
    """Likeliest class of each row of scores [N, K]; of two, the second from ``threshold`` on."""
    if scores.shape[1] == 2:
        return (scores[:, 1] >= threshold).astype(np.int64)
    return np.asarray(scores.argmax(axis=1), dtype=np.int64)


@dataclass(frozen=True)
class Scored:
    """One condition's predictions where the truth is known: class indices [N], scores [N, K]."""

    truth: Ints
    predicted: Ints
    scores: Floats
    groups: Groups

    @property
    def alike(self) -> bool:
        """Whether all images have the same scores: a classifier that tells nobody apart."""
        return bool((self.scores == self.scores[:1]).all())

    @property
    def ill(self) -> Scored:
        """Of several classes all but the first as one: is anything the matter? Two stay."""
        well, several = self.scores[:, :1], self.scores.shape[1] > 2
        truth, predicted = (np.minimum(codes, 1) for codes in (self.truth, self.predicted))
        scores = np.hstack([well, 1 - well]) if several else self.scores
        return Scored(truth, predicted, scores, self.groups)

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

    Predictions have ``PREDICTION_COLUMNS``, truth and level as names; ``table`` has image and level
    names per attribute; of two levels the second is called from ``threshold`` on. InputError: a
    column or an image's attributes missing, or a level without a probability in [0, 1].
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
    predicted = predicted_class(scores[known], threshold)
    return Scored(truth, predicted, scores[known], group_units(people, attributes))


# -- metrics and their audits ----------------------------------------------------------------


def classification_metrics(
    data: Scored, bootstrap: int = 400, seed: int = 0
) -> dict[str, Estimator]:
    """Estimator of every metric by name; with two classes also rates and calibration.

    ``bootstrap`` replicates (of subjects) lie behind the intervals of ece, and of auc for several
    classes; 0 gives auc the t-interval of its influence values.
    """
    truth, scores, called = data.truth, data.scores, (data.predicted == 1).astype(np.float64)
    correct = (truth == data.predicted).astype(np.float64)
    metrics = {
        "accuracy": mean_metric(correct, bounded=True),
        "auc": _auc_metric(data, bootstrap, seed),
        "brier": brier_metric(truth, scores),
        "ece": ece_metric(truth, scores, replicates=bootstrap, seed=seed),
    }
    if scores.shape[1] > 2:
        return metrics
    positives, negatives = (np.where(truth == k, called, np.nan) for k in (1, 0))
    return metrics | {
        "calibration_slope": calibration_slope_metric(truth, scores),
        "calibration_intercept": calibration_intercept_metric(truth, scores),
        "fnr": fnr_metric(truth, data.predicted),
        "selection_rate": mean_metric(called, bounded=True),
        "true_positive_rate": mean_metric(positives, bounded=True),
        "false_positive_rate": mean_metric(negatives, bounded=True),
    }


def _auc_metric(data: Scored, bootstrap: int, seed: int) -> Estimator:
    """AUC after DeLong; for several classes a group's own interval is BCa's."""

    def resampled(rows: Ints, times: Floats) -> Floats:
        return weighted_auc(data.truth[rows], data.scores[rows], times)

    def one(unit: Ints, member: Bools) -> Estimate:
        exact = macro_auc(data.truth, data.scores, unit, member)
        if data.scores.shape[1] == 2 or not bootstrap or not exact.standard_error > 0:
            return exact
        drawn = bootstrap_bca(resampled, unit, member, bootstrap, seed)
        return replace(exact, limits=drawn.limits, note=drawn.note)

    return each_group(one)


def classification_audits(
    data: Scored,
    attributes: Levels,
    confidence: float = 0.95,
    secondary_below: int = 80,
    *,
    names: Sequence[str] = (),
    bootstrap: int = 400,
    seed: int = 0,
) -> dict[str, Audit]:
    """Audit of every metric of one condition (or of some ``names``), by name; exploratory.

    Selection and false-positive rates make DPD and EOD testable as signed contrasts.
    """
    metrics = classification_metrics(data, bootstrap, seed)
    chosen = {name: one for name, one in metrics.items() if not names or name in names}
    own = {"confidence": confidence, "secondary_below": secondary_below}
    return exploratory_audits(chosen, data.groups, attributes, LOW_IS_BETTER, **own)


def es_estimate(one: Audit, attribute: str) -> Estimate:
    """Equity-scaled accuracy or AUC, M / (1 + sum_g |M_g - M|), by the delta method.

    Its influence values are those of M and of the levels, weighted by the derivatives; they
    know the subjects that M and M_g share. Where levels are equal the value lies below M by
    as much as chance moves them, and no interval mends that. Levels without a value stay out.
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


def es_by_chance(one: Audit, attribute: str) -> float:
    """Mean of the equity-scaled value where in truth all levels are equal.

    M / (1 + sqrt(2 / pi) sum_g s_g), s_g the standard error of M_g - M: a normal deviate's mean
    size is sqrt(2 / pi). Of an AUC of 0.85, and 36 and 300 subjects, that is 0.806; the value as
    defined has a mean of 0.807. No debiased value is given: less the variance of each squared
    distance, it is 0.02 too low with 36 subjects where levels are equal, and 0.02 too high where
    one is 0.1 worse. NaN where a level or the whole has no usable variance.
    """
    levels = [one.estimates[attribute, level] for level in one.attributes[attribute]]
    gaps = [combine([level, one.overall], [1.0, -1.0]) for level in levels if level.n >= MIN_UNITS]
    away = np.sqrt(2 / np.pi) * sum(gap.standard_error for gap in gaps)
    return float(one.overall.value / (1 + away))


def es_audit(one: Audit) -> Audit:
    """Equity-scaled accuracy or AUC of every attribute, as (attribute, "all")."""
    found = {(name, "all"): es_estimate(one, name) for name in one.attributes}
    return replace(one, metric=f"es_{one.metric}", estimates=found)


# -- tables ----------------------------------------------------------------------------------


def classification_table(
    predictions: pd.DataFrame,  # as for :func:`scored`; levels in the order of their first rows
    table: pd.DataFrame,
    attributes: Levels,
    *,
    labels: Mapping[str, Any],  # first columns, as {"dataset": ..., "source": ..., "seed": ...}
    thresholds: Mapping[str, float] | None = None,  # for a second level of two; absent or NaN: 0.5
    # looks at the test images while fitting: what choosing the step by them would have claimed (E4)
    watched: pd.DataFrame | None = None,
    mismatched: pd.DataFrame | None = None,  # the same images, prepared otherwise (E6)
    metrics: Sequence[str] = (),  # audited by group, with accuracy and auc; all without a name
    confidence: float = 0.95,
    bootstrap: int = 400,
) -> pd.DataFrame:
    """Metrics of every condition, overall, by level and summarised by attribute.

    The labels, then ``COLUMNS``, n being subjects. By level: :func:`classification_metrics`; per
    attribute (level "all") es_accuracy, es_auc, dpd, eod, both as released, psd_mean and psd_max
    (of the AUC), fnr_gap, fnr_gap_by_chance, and fnr_worst at its level.
    """
    frames = []
    for condition in dict.fromkeys(predictions["condition"]):
        data = scored(predictions, table, condition, attributes, _cut(thresholds, condition))
        audits = classification_audits(
            data, attributes, confidence, names=metrics, bootstrap=bootstrap
        )
        parts = [one.by_group for one in audits.values()]
        parts += [_es_rows(audits[name]) for name in ("accuracy", "auc")]
        gaps = [_gaps(data, name, levels) for name, levels in attributes.items()]
        parts += [_spread_rows(audits["auc"]), pd.DataFrame(list(chain.from_iterable(gaps)))]
        if "fnr" in audits:
            parts.append(worst_rows(audits["fnr"]))
        if watched is not None:
            best = released.best_test_epoch_as_released(watched[watched["condition"] == condition])
            n = len(data.groups.members)
            whole = best.assign(attribute="overall", level="all", n=n, low=np.nan, high=np.nan)
            parts.append(whole)
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
    confidence: float = 0.95,
    secondary_below: int = 80,
) -> list[tuple[Mapping[str, Any], Audit]]:
    """Audits of ``CONTRASTED`` metrics of every condition, each with its labels."""
    audits: list[tuple[Mapping[str, Any], Audit]] = []
    for condition in dict.fromkeys(predictions["condition"]):
        data = scored(predictions, table, condition, attributes, _cut(thresholds, condition))
        found = classification_audits(  # no bootstrap: contrasts rest on influence values
            data, attributes, confidence, secondary_below, names=CONTRASTED, bootstrap=0
        )
        audits += [({**labels, "condition": condition}, one) for one in found.values()]
    return audits


def classification_contrasts(audits: Labelled) -> pd.DataFrame:
    """Signed contrasts of one classifier; the false discovery rate controlled over all of them."""
    return control_discoveries(contrast_table(audits))


def _cut(thresholds: Mapping[str, float] | None, condition: str) -> float:
    cut = float((thresholds or {}).get(condition, 0.5))
    return cut if np.isfinite(cut) else 0.5


# -- summaries by attribute ------------------------------------------------------------------


def _summary(one: Audit) -> pd.DataFrame:
    return equity_rows(one.by_group, one.attributes, {one.metric: one.design.better})


def _es_rows(one: Audit) -> pd.DataFrame:
    """Equity-scaled accuracy or AUC of each attribute, without an interval: it would not hold.

    Round the value as defined it holds the truth in 81% where levels are equal. The note has what
    chance alone would give.
    """
    rows = _records(_summary(one), f"es_{one.metric}")
    for row in rows:
        chance = es_by_chance(one, row["attribute"])
        own = row["note"].replace(GAP_NOTE, ES_NOTE)
        row["note"] = own + f"; chance alone gives {chance:.3f}" * bool(np.isfinite(chance))
    return pd.DataFrame(rows)


def _records(table: pd.DataFrame, *metrics: str) -> list[Row]:
    records = table[table["metric"].isin(metrics)].to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in records]


def _spread_rows(auc: Audit) -> pd.DataFrame:
    """PSD of the AUC, under the names of the released code."""
    rows = _summary(auc)
    rows = rows[rows["metric"].isin(["auc_psd_mean", "auc_psd_max"])]
    return rows.assign(metric=rows["metric"].str.removeprefix("auc_"))


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
        ("dpd", dpd(predicted[kept], codes[kept], classes), own),
        ("eod", eod(truth[kept], predicted[kept], codes[kept], classes), own),
        ("dpd_as_released", released.dpd_as_released(truth, predicted, codes, classes), old),
        ("eod_as_released", released.eod_as_released(truth, predicted, codes, classes), old),
    )
    blank = {"attribute": attribute, "level": "all", "n": n, "low": np.nan, "high": np.nan}
    missing = "not estimable: fewer than two levels with a rate"
    return [
        {**blank, "metric": name, "value": value, "note": note if np.isfinite(value) else missing}
        for name, value, note in rows
    ]


# -- may probabilities be believed? ----------------------------------------------------------
# Two classes: the probability of the second against the truth. More: the largest probability
# against being right (top-label), but for the Brier score, which sums over classes.

BINS = 10  # of equal mass
UNITS_PER_BIN = 2  # subjects on average, for pairs within a bin
LEAST_PROBABILITY = 1e-7  # and 1 minus it: the logit of 0 is infinite
LEAST_SPREAD = 1e-6  # of the logits, a standard deviation: a slope on less is rounding


def brier_metric(truth: Ints, scores: Floats) -> Estimator:
    """Squared error of probabilities [N, K] (Brier 1950): of two classes' second, or summed."""
    error = (scores - np.eye(scores.shape[1])[truth]) ** 2
    return mean_metric(error[:, 1] if scores.shape[1] == 2 else error.sum(axis=1))


# -- expected calibration error --------------------------------------------------------------


def ece_metric(truth: Ints, scores: Floats, replicates: int = 400, seed: int = 0) -> Estimator:
    """Debiased expected calibration error, on the scale of a probability, with BCa intervals.

    The root of :func:`squared_calibration_error`, 0 where chance alone gives as much; such a group
    then has no contrast. Bins have equal mass over all rows and are the same for every group, so
    that groups are measured alike.
    """
    sure, right = believed(truth, scores)
    edges = np.unique(np.quantile(sure, np.linspace(0, 1, BINS + 1)[1:-1]))
    place = np.searchsorted(edges, sure, side="right")

    def one(unit: Ints, member: Bools) -> Estimate:
        n, least = int(member.sum()), max(MIN_UNITS, UNITS_PER_BIN * (len(edges) + 1))
        if n < least:
            return not_estimable(len(member), n, f"fewer than {least} subjects")
        square = partial(squared_calibration_error, sure - right, place, unit)
        return _root(bootstrap_bca(square, unit, member, replicates, seed), member)

    return each_group(one)


def believed(truth: Ints, scores: Floats) -> tuple[Floats, Floats]:
    """Probability that is judged, and whether it came true (0 or 1), float64 [N] each."""
    if scores.shape[1] == 2:
        return scores[:, 1], (truth == 1).astype(np.float64)
    return scores.max(axis=1), (scores.argmax(axis=1) == truth).astype(np.float64)


def squared_calibration_error(
    excess: Floats, place: Ints, unit: Ints, rows: Ints, weights: Floats
) -> Floats:
    """Mean over bins of the squared mean excess, from pairs of different subjects in a bin.

    Leaving out each subject's pair with itself takes away what chance adds to the plug-in value;
    with one image each and one probability per bin this is the debiased reliability of Broecker
    (2012) and Ferro & Fricker (2012), sum_b n_b / n [(p_b - y_b)^2 - y_b (1 - y_b) / (n_b - 1)],
    and the estimator of Kumar et al. (2019). It may be negative. Bins with one subject have no pair
    and are left out.

    Of each row's probability minus outcome, and bin ([N]); ``rows`` [n] are taken, each as often as
    ``weights`` [R, n] says, alike for the rows of a unit. Returns [R], NaN without a pair.
    """
    _, first, owner = np.unique(unit[rows], return_index=True, return_inverse=True)
    cell = (owner, place[rows])
    summed, count = np.zeros((2, len(first), int(place.max()) + 1))  # [units, bins]
    np.add.at(summed, cell, excess[rows])
    np.add.at(count, cell, 1.0)
    drawn = weights[:, first]
    pairs = (drawn @ count) ** 2 - drawn**2 @ count**2
    cross = (drawn @ summed) ** 2 - drawn**2 @ summed**2
    mass = np.where(pairs > 0, drawn @ count, 0.0)
    square = np.divide(cross, pairs, out=np.zeros_like(cross), where=pairs > 0)
    total = mass.sum(axis=1)
    nothing = np.full(len(total), np.nan)
    return np.asarray(np.divide((mass * square).sum(axis=1), total, out=nothing, where=total > 0))


def _root(square: Estimate, member: Bools) -> Estimate:
    """Root of a squared error, its interval and (by the delta method) its influence."""
    if not np.isfinite(square.value):
        return square
    limits = None if square.limits is None else partial(_root_limits, square)
    root = replace(square, limits=limits, bounds=(0.0, 1.0))
    if square.value > 0:
        value = float(np.sqrt(square.value))
        return replace(root, value=value, influence=square.influence / (2 * value))
    note = "no more than chance alone gives: no contrasts"
    return replace(root, value=0.0, influence=np.where(member, np.nan, 0.0), note=note)


def _root_limits(square: Estimate, confidence: float) -> tuple[float, float]:
    low, high = np.sqrt(np.maximum(square.interval(confidence), 0))  # NaN stays NaN
    return float(low), float(high)


# -- calibration slope and intercept ---------------------------------------------------------


def calibration_slope_metric(truth: Ints, scores: Floats) -> Estimator:
    """Slope of the truth on the logit of the score: below 1 where scores are too extreme.

    Logistic regression of the second of two classes (Cox 1958), sandwich variance over subjects.
    """
    return _calibration(truth, scores, slope=True)


def calibration_intercept_metric(truth: Ints, scores: Floats) -> Estimator:
    """Calibration in the large: intercept at slope 1, above 0 where scores are too low.

    With the logit of the score as offset (Van Calster et al. 2019).
    """
    return _calibration(truth, scores, slope=False)


def _calibration(truth: Ints, scores: Floats, slope: bool) -> Estimator:
    if scores.shape[1] != 2:
        raise InputError(f"calibration slope: {scores.shape[1]} classes; expected two")
    sure = np.clip(scores[:, 1], LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    case, score = truth == 1, special.logit(sure)
    return each_group(partial(_logistic, case, score, slope))


def _logistic(case: Bools, score: Floats, slope: bool, unit: Ints, member: Bools) -> Estimate:
    """Last coefficient of a logistic regression, with its influence values over units."""
    rows, units = np.flatnonzero(member[unit]), len(member)
    n = len(np.unique(unit[rows]))
    if n < MIN_UNITS:
        return not_estimable(units, n, f"fewer than {MIN_UNITS} subjects")
    y, z = case[rows], score[rows]
    if y.all() or not y.any():
        return not_estimable(units, n, "one class only")
    if slope and not np.ptp(z) > 0:
        return not_estimable(units, n, "all scores equal")
    if slope and not (z[y].min() < z[~y].max() and z[~y].min() < z[y].max()):
        return not_estimable(units, n, "the scores separate the classes")
    found = _slope(y, z) if slope else _intercept(y, z)
    if found is None:
        return not_estimable(units, n, "the scores differ too little for a slope")
    value, part = found
    influence = np.bincount(unit[rows], weights=part, minlength=units) * np.sqrt(n / (n - 1))
    return Estimate(value, influence, n, float(n - 1))


def _intercept(y: Bools, z: Floats) -> tuple[float, Floats]:
    """Intercept with offset ``z``, and the rows' influence on it: the excess falls with it."""
    widest = float(np.abs(z).max()) + float(np.abs(special.logit(y.mean()))) + 1.0  # brackets it
    value = float(
        optimize.brentq(lambda a: float(special.expit(a + z).sum() - y.sum()), -widest, widest)
    )
    fitted = special.expit(value + z)
    return value, (y - fitted) / float((fitted * (1 - fitted)).sum())


def _slope(y: Bools, z: Floats) -> tuple[float, Floats] | None:
    """Slope on ``z``, and the rows' influence on it; None where the scores hardly differ."""
    spread = float(z.std())
    if spread < LEAST_SPREAD:
        return None
    design = np.column_stack([np.ones(len(z)), (z - z.mean()) / spread])  # or Newton overshoots
    with np.errstate(over="ignore"):  # of exp in a step too far, which the next one mends
        found = Logit(y.astype(float), design).fit(
            method="newton", maxiter=100, disp=False, warn_convergence=False
        )
    if not found.mle_retvals["converged"]:
        return None
    part = (found.model.score_obs(found.params) @ found.cov_params())[:, -1]
    return float(found.params[-1]) / spread, part / spread


# -- underdiagnosis --------------------------------------------------------------------------


def fnr_metric(truth: Ints, predicted: Ints) -> Estimator:
    """False-negative rate: share of the second of two classes [N] that was called the first."""
    missed = np.where(truth == 1, predicted != 1, np.nan)

    def one(unit: Ints, member: Bools) -> Estimate:
        found = mean_of_rows(missed, unit, member, bounded=True)
        if np.isfinite(found.value):
            return found
        reason = f"fewer than {MIN_UNITS} positive subjects" if found.n else "no positive subject"
        return not_estimable(len(member), found.n, reason)

    return each_group(one)
