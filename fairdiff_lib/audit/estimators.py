"""Estimators: from rows and units to an estimate with its influence values.

U-statistics of order two, cluster means, AUC after DeLong, the jackknife for any function
of rows, and the cluster bootstrap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fairdiff_lib.audit.estimate import (
    MIN_UNITS,
    Bools,
    Estimate,
    Floats,
    Ints,
    combine,
    not_estimable,
    without_error,
)

Weighted = Callable[[Ints, Floats], Floats]  # rows [n], multiplicities [R, n] => values [R]
CHUNK = 256  # leave-one-out samples at a time: bounds the memory
SAME = "every pair of its subjects gives the same value"
ALIKE = 1e-12  # an error of kernel values, which are 1 at most: a smaller one is rounding


def u_statistic(
    real: Floats, generated: Floats, unit: Ints, member: Bools, source: Ints | None = None
) -> Estimate:
    """Order-two U-statistic with its jackknife variance, from sums over partners.

    With h(i, j) over pairs of units and a_i = sum_{j != i} h(i, j) / (n - 1), the value is
    the mean of a_i and V = 4 (n - 1) / (n (n - 2)^2) sum_i (a_i - value)^2.

    ``real`` and ``generated`` [N]: sum over the group's other units j of the part of h(i, j) that
    belongs to the real (generated) image; a row per image, averaged here over those of a unit.
    ``source`` [N]: unit that the generated image was made for, where it stands elsewhere (a
    permutation): its influence is booked there.
    """
    n, units = int(member.sum()), len(member)
    if n < MIN_UNITS:
        return not_estimable(units, n, f"fewer than {MIN_UNITS} subjects")
    share = member[unit] / np.bincount(unit, minlength=units)[unit]  # weight of an image
    scale = 2 * np.sqrt((n - 1) / n) / (n - 2)
    value, influence = 0.0, np.zeros(units)
    for part, home in ((real, unit), (generated, unit if source is None else source)):
        mean = float(share @ part) / n / (n - 1)
        value += mean
        centred = share * (part / (n - 1) - mean)
        influence += scale * np.bincount(home, weights=centred, minlength=units)
    return Estimate(value, influence, n, float(n - 1))


def unless_alike(found: Estimate, member: Bools) -> Estimate:
    """A statistic of kernel values; without an interval where every pair of units says the same.

    As of a group whose images are all one: no spread of a sample is no certainty.
    """
    if found.standard_error > ALIKE or not np.isfinite(found.value):
        return found
    return without_error(found.value, member, found.n, SAME)


def mean_of_rows(values: Floats, unit: Ints, member: Bools, bounded: bool = False) -> Estimate:
    """Mean over the images [N] of a group (``member`` [U]), units as clusters; NaN is left out.

    ``bounded``: the values are 0 or 1.
    """
    used = member[unit] & np.isfinite(values)
    n, units = len(np.unique(unit[used])), len(member)
    if n < MIN_UNITS:
        return not_estimable(units, n, f"fewer than {MIN_UNITS} subjects")
    mean = float(values[used].mean())
    rows = np.where(used, np.nan_to_num(values) - mean, 0.0) / used.sum()
    influence = np.bincount(unit, weights=rows, minlength=units) * np.sqrt(n / (n - 1))
    if not np.any(influence):
        return without_error(mean, member, n, "all values equal")
    return Estimate(mean, influence, n, float(n - 1), bounded=bounded)


def auc(truth: Bools, score: Floats, unit: Ints, member: Bools) -> Estimate:
    """Area under the ROC curve with DeLong's variance, for clusters as Obuchowski's (1997).

    Of truth and score [N], for the units of a group, bool [U].
    """
    used, units = member[unit], len(member)
    n = len(np.unique(unit[used]))
    if n < MIN_UNITS:
        return not_estimable(units, n, f"fewer than {MIN_UNITS} subjects")
    positive, negative = used & truth, used & ~truth
    if not positive.any() or not negative.any():
        return not_estimable(units, n, "one class only")
    rows = np.flatnonzero(used)
    above = stats.rankdata(score[rows])  # midranks among both classes
    within = np.empty(len(rows))
    for one in (truth[rows], ~truth[rows]):
        within[one] = stats.rankdata(score[rows][one])
    other = np.where(truth[rows], negative.sum(), positive.sum())
    placement = np.zeros(len(truth))  # share of the other class below (above, for negatives)
    placement[rows] = (above - within) / other
    placement[negative] = 1 - placement[negative]
    value = float(placement[positive].mean())
    influence, variances, dfs = np.zeros(units), [], []
    for one in (positive, negative):
        clusters = len(np.unique(unit[one]))
        if clusters < 2:
            return without_error(value, member, n, "a class with a single subject")
        centred = np.where(one, placement - value, 0.0) / one.sum()
        part = np.bincount(unit, weights=centred, minlength=units)
        part *= np.sqrt(clusters / (clusters - 1))
        influence += part
        variances.append(float(np.sum(part**2)))
        dfs.append(clusters - 1)
    total = sum(variances)
    if not total > 0:
        told = "perfect separation" if np.ptp(score[rows]) > 0 else "all scores equal"
        return without_error(value, member, n, told)
    df = total**2 / sum(v**2 / d for v, d in zip(variances, dfs, strict=True))
    return Estimate(value, influence, n, df, bounded=True)


def macro_auc(truth: Ints, scores: Floats, unit: Ints, member: Bools) -> Estimate:
    """One-against-rest AUC of class index [N] and scores [N, K], mean over classes."""
    if scores.shape[1] == 2:
        return auc(truth == 1, scores[:, 1], unit, member)
    classes = [auc(truth == k, scores[:, k], unit, member) for k in range(scores.shape[1])]
    n = classes[0].n
    if n < MIN_UNITS:
        return classes[0]
    mean = combine(classes, [1 / len(classes)] * len(classes))
    if not np.isfinite(mean.value):
        return not_estimable(len(member), n, "a class without a subject")
    if not mean.standard_error > 0:
        return without_error(mean.value, member, n, "a class with a single subject, or separated")
    return Estimate(mean.value, mean.influence, n, min(c.df for c in classes), bounded=True)


def jackknife_units(function: Callable[[Ints], float], unit: Ints, member: Bools) -> Estimate:
    """Any smooth function of image rows, with influence values from leaving out one unit each.

    ``function`` takes int64 row indices and is called once per unit of the group.
    """

    def weighted(rows: Ints, weights: Floats) -> Floats:
        return np.array([function(rows[own > 0]) for own in weights], dtype=np.float64)

    return jackknife_weighted(weighted, unit, member)


def multiplicities(unit: Ints, replicates: int, seed: int = 0) -> Floats:
    """Cluster bootstrap: how often each image row counts in each replicate, float64 [R, N].

    Units are drawn with replacement, one seed per replicate, so that replicate r is the same
    whatever the number of replicates.
    """
    names, owner = np.unique(unit, return_inverse=True)
    drawn = np.empty((replicates, len(names)))
    for r, child in enumerate(np.random.SeedSequence(seed).spawn(replicates)):
        picks = np.random.default_rng(child).integers(len(names), size=len(names))
        drawn[r] = np.bincount(picks, minlength=len(names))
    return drawn[:, owner]


def jackknife_weighted(function: Weighted, unit: Ints, member: Bools) -> Estimate:
    """:func:`jackknife_units` for statistics that take many samples at once.

    ``function`` takes rows int64 [n] and how often each counts, float64 [R, n], to values [R].
    """
    rows, units = np.flatnonzero(member[unit]), len(member)
    names, owner = np.unique(unit[rows], return_inverse=True)
    n = len(names)
    if n < MIN_UNITS:
        return not_estimable(units, n, f"fewer than {MIN_UNITS} subjects")
    value = float(function(rows, np.ones((1, len(rows))))[0])
    if not np.isfinite(value):
        return not_estimable(units, n, "undefined for these subjects")
    parts = [np.arange(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK)]
    left = np.concatenate([function(rows, (owner != k[:, None]).astype(float)) for k in parts])
    if not np.isfinite(left).all():
        return without_error(value, member, n, "undefined without one of the subjects")
    if not np.ptp(left) > 0:
        return without_error(value, member, n, "the same without any one subject")
    influence = np.zeros(units)
    influence[names] = (left.mean() - left) * np.sqrt((n - 1) / n)
    return Estimate(value, influence, n, float(n - 1))


def bootstrap_bca(
    function: Weighted, unit: Ints, member: Bools, replicates: int = 400, seed: int = 0
) -> Estimate:
    """The same with the BCa interval of a cluster bootstrap (Efron 1987), at any confidence.

    Units are resampled (see :func:`multiplicities`). Contrasts still rest on the jackknife's
    influence values, as does the acceleration. ``scipy.stats.bootstrap`` has neither a seed per
    replicate nor a way round replicates that lack a class.

    Never for a kernel metric: a unit that is drawn twice would be paired with itself, where k(x, x)
    = 1 is the largest value there is. KID has the variance of :func:`u_statistic`. Nor for summed
    or largest distances between groups: their replicates are more unequal than the sample.
    """
    found = jackknife_weighted(function, unit, member)
    if not found.standard_error > 0:
        return found
    rows = np.flatnonzero(member[unit])
    drawn = function(rows, multiplicities(unit[rows], replicates, seed))
    usable = drawn[np.isfinite(drawn)]
    lost = replicates - len(usable)
    if 2 * lost > replicates:
        return without_error(found.value, member, found.n, "undefined in most resamples")
    note = f"{lost} of {replicates} resamples undefined, left out" if lost else ""
    limits = partial(bca_limits, found.value, usable, found.influence)
    return replace(found, note=note, limits=limits)


def bca_limits(
    value: float, drawn: Floats, influence: Floats, confidence: float = 0.95
) -> tuple[float, float]:
    """Bias-corrected and accelerated interval from the statistic of every replicate, [R].

    NaN where the value lies outside all replicates. Influence values on any scale.
    """
    below = (np.mean(drawn < value) + np.mean(drawn <= value)) / 2  # ties count half
    if not 0 < below < 1:
        return float("nan"), float("nan")
    acceleration = np.sum(influence**3) / (6 * np.sum(influence**2) ** 1.5)
    shift = stats.norm.ppf(below)
    reach = shift + stats.norm.ppf([(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = np.quantile(drawn, stats.norm.cdf(shift + reach / (1 - acceleration * reach)))
    return float(low), float(high)


def weighted_auc(truth: NDArray[Any], scores: Floats, weights: Floats) -> Floats:
    """Macro one-against-rest AUC per replicate (two classes: of the second), ties counted half.

    Class index [N], scores [N, K] and multiplicities [R, N] to [R]; NaN where a class is missing.
    """
    columns = [1] if scores.shape[1] == 2 else range(scores.shape[1])
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
