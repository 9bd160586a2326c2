"""From influence values to intervals, contrasts and adjusted p-values.

The unit is a subject (a patient, a lesion), which may have several images. Every estimate
carries one influence value per unit, scaled so that their squares sum to the variance.
Sums, differences and means of estimates are then sums of influence values, so that a
comparison over shared units knows their correlation without further work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special, stats
from scipy.optimize import brentq

from fairdiff_lib.settings.errors import InputError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Levels = Mapping[str, Sequence[str]]  # attribute or condition: its level names, in order

MIN_UNITS = 10  # a variance from fewer units says nothing; such groups are "not estimable"
OVERALL = ("overall", "all")
LEAST_POWER = -14.0  # of 10: a smaller p is not told from this one


@dataclass(frozen=True)
class Groups:
    """Which units there are and which groups they belong to.

    Units are numbered by sorted name, so the order of rows does not matter.
    """

    unit: Ints  # [N]: of each image row
    keys: tuple[tuple[str, str], ...]  # (attribute, level) per column, ("overall", "all") first
    members: Bools  # [U, M]

    def column(self, attribute: str, level: str) -> Bools:
        """Units of a level, bool [U]."""
        return self.members[:, self.keys.index((attribute, level))]

    def sizes(self) -> Ints:
        """Units of each group, int64 [M]."""
        return np.asarray(self.members.sum(axis=0), dtype=np.int64)


def group_units(table: pd.DataFrame, levels: Levels, unit: str = "subject") -> Groups:
    """Units and groups of a table with a row per image.

    A column ``unit``, and one per key of ``levels`` that holds level names; a level without a row
    stays, with n = 0. InputError: a missing column, an undeclared level, a unit in two levels.
    """
    for name in (unit, *levels):
        if name not in table.columns:
            raise InputError(f"table of images: column {name!r} is missing")
    codes, names = pd.factorize(table[unit], sort=True)
    if (codes < 0).any():
        raise InputError(f"table of images: row {int(np.argmin(codes))} has no {unit}")
    owner = codes.astype(np.int64)
    columns = [np.ones(len(names), dtype=bool)]
    for name, known in levels.items():
        level = _level_of_units(table, name, known, owner, np.asarray(names))
        columns += [level == code for code in range(len(known))]
    keys = (OVERALL, *((name, level) for name, known in levels.items() for level in known))
    return Groups(owner, keys, np.stack(columns, axis=1))


def _level_of_units(
    table: pd.DataFrame, name: str, known: Sequence[str], owner: Ints, units: NDArray[np.object_]
) -> Ints:  # [U]
    """Level index of each unit; refuses unknown levels and units with two."""
    index = {level: code for code, level in enumerate(known)}
    code = np.array([index.get(cell, -1) for cell in table[name]], dtype=np.int64)
    if (code < 0).any():
        row = int(np.argmax(code < 0))
        raise InputError(
            f"subject {str(units[owner[row]])!r}: {name} is {table[name].iloc[row]!r}; "
            f"expected one of {', '.join(known)}"
        )
    level = np.zeros(len(units), dtype=np.int64)
    level[owner] = code
    if (level[owner] != code).any():
        row = int(np.argmax(level[owner] != code))
        raise InputError(f"subject {str(units[owner[row]])!r}: {name} has two levels; expected one")
    return level


@dataclass(frozen=True)
class Estimate:
    """A number with its uncertainty over units."""

    value: float  # NaN where not estimable; the note then says why
    # [U]: squares sum to the variance; zero for units that had no part. NaN where the value has no
    # usable variance (all equal, perfect separation): no interval or p, of a difference neither
    influence: Floats
    n: int  # units behind the value
    df: float  # degrees of freedom of the t-interval
    note: str = ""
    bounded: bool = False  # a rate in [0, 1]: its interval is made on the logit scale
    # confidence to (low, high), where that isn't the t-interval: a bootstrap's, or that of a
    # difference of two rates. Combinations don't inherit it
    limits: Callable[[float], tuple[float, float]] | None = None
    # what the value can't leave, and its interval doesn't; a mean over models keeps them
    bounds: tuple[float, float] = (-np.inf, np.inf)
    # a squared distance: its interval is made on the scale of its root (:func:`root_limits`)
    rooted: bool = False
    from_limits: bool = False  # differences of separate groups come from both limits, as of rates
    runs: int = 0  # the last influence values that are runs': too few to show a skewness

    @cached_property  # it and the next one: a p asks for a dozen intervals
    def standard_error(self) -> float:
        """Square root of the summed squares of the influence values."""
        return float(np.sqrt(np.sum(self.influence**2)))

    @cached_property
    def lopsided(self) -> float:
        """Skewness of the value, as of a mean: from the third moment of its units' parts."""
        units = self.influence[: len(self.influence) - self.runs]
        return float(np.sum(units**3) / self.standard_error**3)

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Two-sided t-interval, or the estimate's own; NaN where it has no variance."""
        if self.limits is not None:
            return self.limits(confidence)
        error = self.standard_error
        if not np.isfinite(self.value) or not error > 0:
            return float("nan"), float("nan")
        if self.rooted:
            return root_limits(self.value, error, self.df, confidence, self.lopsided)
        reach = -float(special.stdtrit(self.df, (1 - confidence) / 2)) * error
        if not self.bounded:
            low, high = np.clip(self.value + reach * np.array([-1.0, 1.0]), *self.bounds)
            return float(low), float(high)
        centre = np.log(self.value / (1 - self.value))
        reach /= self.value * (1 - self.value)
        low, high = special.expit(centre + reach * np.array([-1.0, 1.0]))
        return float(low), float(high)

    def p_value(self) -> float:
        """Two-sided p of a value of zero; NaN where the estimate has no variance."""
        error = self.standard_error
        if not np.isfinite(self.value) or not error > 0:
            return float("nan")
        if self.limits is not None or self.rooted:
            return float(np.minimum(1.0, 2 * self._p_beyond(0.0)))
        return float(2 * stats.t.sf(abs(self.value) / error, self.df))

    def p_above(self) -> float:
        """One-sided p of a true value of zero or less; NaN where the estimate has no variance."""
        both = self.p_value()
        return both / 2 if self.value > 0 else 1 - both / 2

    def _p_beyond(self, target: float) -> float:
        """One-sided p at which the estimate's own interval just reaches ``target``; NaN without."""
        side = 0 if self.value > target else 1
        away = 1.0 if side == 0 else -1.0
        interval = self.interval

        def room(power: float) -> float:  # of p = 10 ** power, between target and interval
            return away * float(np.clip(interval(1 - 2 * 10**power)[side] - target, -1e9, 1e9))

        most = float(np.log10(0.499))
        if np.isnan(room(most)):
            return float("nan")
        if room(most) <= 0:
            return 0.5
        found = brentq(room, LEAST_POWER, most) if room(LEAST_POWER) < 0 else LEAST_POWER
        return float(10**found)

    def p_equivalence(self, margin: float) -> float:
        """P of two one-sided tests (Schuirmann 1987) against a true size of ``margin`` or more.

        Below 5% exactly where the 90% interval lies inside (-margin, margin). NaN without a
        variance or a positive margin.
        """
        error = self.standard_error
        if not np.isfinite(self.value) or not error > 0 or not margin > 0:
            return float("nan")
        if self.limits is not None or self.rooted:
            inside = abs(self.value) < margin
            return max(self._p_beyond(end) for end in (-margin, margin)) if inside else 1.0
        return float(stats.t.sf((margin - abs(self.value)) / error, self.df))

    def detectable(self, confidence: float = 0.95, power: float = 0.8) -> float:
        """Smallest true size that a two-sided test of zero finds with ``power``; NaN without one.

        (t_{1 - a/2} + t_{power}) x standard error, a = 1 - confidence; of one test by itself.
        """
        error = self.standard_error
        if not np.isfinite(self.value) or not error > 0:
            return float("nan")
        reach = stats.t.ppf((1 + confidence) / 2, self.df) + stats.t.ppf(power, self.df)
        return float(reach * error)


def root_limits(
    value: float, error: float, df: float, confidence: float = 0.95, skewness: float = 0.0
) -> tuple[float, float]:
    """Limits of a squared distance: squares of those of its root, where it is clearly above 0.

    The root is nearly a mean over units: of how far each lies apart in the direction in which the
    two laws differ. Where few units make the distance, such a mean is skewed, and its error too
    small where it is low by chance; so the arms are Hall's (1992), (root - down s, root + up s)
    with s = error / (2 root). The upper one is never shorter than t: a sample that by chance has
    none of the rare units shows no skewness. Near 0 there is no root scale: from ``value = down
    error`` down the lower limit passes over into value - down error, which may be negative, and the
    upper one keeps the bend of one error.
    """
    reach = -float(special.stdtrit(df, (1 - confidence) / 2))
    up, down = -error * skewed(-reach, max(skewness, 0.0)), error * skewed(reach, skewness)
    bend = np.array([down, up]) ** 2 / (4 * max(value, error))
    low = value - down + bend[0] * float(np.clip(2 * value / down - 1, 0, 1))
    return float(low), float(value + up + bend[1])


def skewed(reach: float, skewness: float) -> float:
    """The t-statistic of a mean that is exceeded as often as ``reach``, of one without skewness.

    Hall (1992), J. R. Stat. Soc. B 54, 221: the inverse of t + g (2 t^2 + 1) / 6 + g^2 t^3 / 27,
    with g the skewness of the mean; monotone, so that every p has one interval.
    """
    if abs(skewness) < 1e-6:
        return reach
    return float(3 / skewness * (np.cbrt(1 + skewness * (reach - skewness / 6)) - 1))


def not_estimable(units: int, n: int, reason: str) -> Estimate:
    """NaN with its n and the reason."""
    return Estimate(float("nan"), np.zeros(units), n, float("nan"), f"not estimable: {reason}")


def without_error(value: float, member: Bools, n: int, reason: str) -> Estimate:
    """A value that has no usable variance."""
    return Estimate(value, np.where(member, np.nan, 0.0), n, float("nan"), f"no interval: {reason}")


def combine(estimates: Sequence[Estimate], weights: Sequence[float]) -> Estimate:
    """Weighted sum of estimates; its variance respects units that they share.

    Degrees of freedom are Satterthwaite's where no unit is shared (Welch's for a
    difference of two groups), otherwise the smallest.
    """
    scale = np.asarray(weights, dtype=np.float64)
    notes = list(dict.fromkeys(e.note for e in estimates if not np.isfinite(e.value)))
    units = len(estimates[0].influence)
    n = sum(e.n for e in estimates)
    if notes:
        return Estimate(float("nan"), np.zeros(units), n, float("nan"), "; ".join(notes))
    note = "; ".join(dict.fromkeys(e.note for e in estimates if e.note))
    rows = np.stack([e.influence for e in estimates])
    value = float(scale @ np.array([e.value for e in estimates]))
    df = np.array([e.df for e in estimates])
    shared = bool((np.count_nonzero(rows, axis=0) > 1).any())
    if shared:
        n = int(np.any(rows != 0, axis=0).sum())
        return Estimate(value, scale @ rows, n, float(df.min()), note)
    parts = (scale[:, None] * rows**2 * scale[:, None]).sum(axis=1)
    total = parts.sum()
    pooled = total**2 / np.sum(parts**2 / df) if total > 0 else df.min()
    return Estimate(value, scale @ rows, n, float(pooled), note)


def difference(first: Estimate, second: Estimate) -> Estimate:
    """``first`` minus ``second``: Welch for separate groups, paired for shared units.

    Two rates, or KIDs, of separate groups get the interval that their own ones imply (MOVER: Zou
    and Donner 2008; for rates Newcombe 1998). Welch's is too short for them: the AUC of 36
    subjects, a third of them ill, alarms in 11% of audits at 5%.
    """
    gap = combine([first, second], [1.0, -1.0])
    shared = np.any((first.influence != 0) & (second.influence != 0))
    own = all(e.bounded or e.rooted or e.from_limits for e in (first, second))
    if not own or shared or not gap.standard_error > 0:
        return gap
    return replace(gap, limits=partial(rate_difference, first, second))


def rate_difference(
    first: Estimate, second: Estimate, confidence: float = 0.95
) -> tuple[float, float]:
    """Limits of a difference of two separate rates from the limits of its two parts."""
    (low, high), (below, above) = first.interval(confidence), second.interval(confidence)
    gap = first.value - second.value
    return (
        float(gap - np.hypot(first.value - low, above - second.value)),
        float(gap + np.hypot(high - first.value, second.value - below)),
    )


def mean_estimate(estimates: Sequence[Estimate]) -> Estimate:
    """Mean of several estimates of one group on the same units, as those of several models.

    Its variance is that over units of the mean, so it speaks of these models on new units.
    """
    mean = combine(estimates, [1 / len(estimates)] * len(estimates))
    kept = estimates[0].bounds if len({e.bounds for e in estimates}) == 1 else mean.bounds
    bounded, n = all(e.bounded for e in estimates), max(e.n for e in estimates)
    rooted = all(e.rooted for e in estimates)
    return replace(mean, n=n, bounded=bounded, rooted=rooted, bounds=kept)


def max_t(contrasts: Sequence[Estimate], seed: int = 0, draws: int = 200_000) -> Floats:
    """Family-wise p-values [K] of several contrasts by the largest |t|; NaN for those without a p.

    Each contrast's own t-based p is mapped to a normal deviate; the joint null is normal with the
    correlation that the influence values have. Monte Carlo, held between the unadjusted p and
    Bonferroni's.
    """
    raw = np.array([c.p_value() for c in contrasts], dtype=np.float64)
    known = [k for k, p in enumerate(raw) if np.isfinite(p)]
    adjusted = np.full(len(raw), np.nan)
    if len(known) == 0:
        return adjusted
    rows = np.stack([contrasts[k].influence / contrasts[k].standard_error for k in known])
    values, vectors = np.linalg.eigh(rows @ rows.T)
    root = vectors * np.sqrt(np.clip(values, 0, None))
    normal = np.random.default_rng(seed).standard_normal((draws, len(known)))
    largest = np.sort(np.abs(normal @ root.T).max(axis=1))
    deviate = stats.norm.isf(raw[known] / 2)
    tail = 1 - np.searchsorted(largest, deviate) / draws
    adjusted[known] = np.clip(tail, raw[known], np.minimum(1.0, len(known) * raw[known]))
    return adjusted
