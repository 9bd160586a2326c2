"""Are probabilities to be believed, and who is missed? Calibration and underdiagnosis by group.

Every metric is an estimator for ``audit.audit``. Two classes: the probability of the second
against the truth. More: the largest probability against being right (top-label), but for the
Brier score, which sums over classes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from scipy import optimize, special
from statsmodels.discrete.discrete_model import Logit

from fairdiff_lib.audit.audit import Estimator, each_group, mean_metric
from fairdiff_lib.audit.estimate import MIN_UNITS, Bools, Estimate, Floats, Ints, not_estimable
from fairdiff_lib.audit.estimators import bootstrap_bca, mean_of_rows
from fairdiff_lib.settings.errors import InputError

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
