"""Membership inference: can the model's own loss tell whom it was trained on?

The score of an image is minus its denoising loss: a model that has memorised an image denoises it
better than another one. By group: the AUC, and the share of members found at a threshold that
wrongly names few non-members (Carlini et al. 2022), the same threshold for everybody.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from statsmodels.stats.proportion import proportion_confint

from fairdiff_lib.audit.audit import Audit, Estimator, auc_metric, audit
from fairdiff_lib.audit.contrasts import EXPLORATORY
from fairdiff_lib.audit.estimate import (
    MIN_UNITS,
    OVERALL,
    Bools,
    Estimate,
    Floats,
    Groups,
    Levels,
    combine,
    not_estimable,
    rate_difference,
)
from fairdiff_lib.audit.estimators import multiplicities
from fairdiff_lib.audit.operating import threshold_at
from fairdiff_lib.settings.errors import InputError

AUC, FOUND, ALARMED, ADVANTAGE = (
    f"membership_{name}" for name in ("auc", "tpr", "fpr", "advantage")
)
CONTRASTED = (AUC, ADVANTAGE)  # a rate at one threshold also differs where a level is easier


@dataclass(frozen=True)
class Scores:
    """What an attacker knows of every real image, members and non-members together.

    Attributes
    ----------
    score : float64 [N]
        Higher for a likelier member.
    member : bool [N]
        Whether the generator was trained on it.
    groups : Groups
        A subject has members or non-members, not both.
    """

    score: Floats
    member: Bools
    groups: Groups

    def __post_init__(self) -> None:
        if not np.isfinite(self.score).all():
            row = int(np.argmin(np.isfinite(self.score)))
            raise InputError(f"membership score: row {row} is not finite")
        for kind, rows in (("member", self.member), ("non-member", ~self.member)):
            if len(np.unique(self.groups.unit[rows])) < MIN_UNITS:
                raise InputError(f"membership: expected at least {MIN_UNITS} {kind} subjects")
        both = set(self.groups.unit[self.member]) & set(self.groups.unit[~self.member])
        if both:
            raise InputError(f"membership: {len(both)} subject(s) are members and non-members")


def membership_audits(
    scores: Scores,
    attributes: Levels,
    *,
    false_positives: float = 0.01,
    confidence: float = 0.95,
    secondary_below: int = 80,
    bootstrap: int = 400,
    seed: int = 0,
) -> dict[str, Audit]:
    """Audits of membership inference, by metric; all exploratory.

    Parameters
    ----------
    scores : Scores
    attributes, confidence, secondary_below
        As for ``fairness.audit``.
    false_positives : float
        Of new non-members, at the one threshold that all non-members together set.
    bootstrap, seed : int
        Replicates (of members and of non-members, which set the threshold anew).

    Returns
    -------
    dict
        membership_auc (DeLong's intervals); membership_tpr and membership_fpr (of the group at
        that threshold); membership_advantage, their difference.
    """
    rates = _Rates(scores, false_positives, bootstrap, seed)
    truth = scores.member.astype(np.int64)
    metrics: dict[str, Estimator] = {
        AUC: auc_metric(truth, np.column_stack([-scores.score, scores.score])),
        FOUND: lambda groups: [rates.rate(groups, k, True) for k in range(len(groups.keys))],
        ALARMED: lambda groups: [rates.rate(groups, k, False) for k in range(len(groups.keys))],
        ADVANTAGE: lambda groups: [rates.advantage(groups, k) for k in range(len(groups.keys))],
    }
    return {
        name: audit(
            estimator,
            scores.groups,
            attributes,
            metric=name,
            confidence=confidence,
            secondary_below=secondary_below,
            role=EXPLORATORY,
            seed=seed,
        )
        for name, estimator in metrics.items()
    }


class _Rates:
    """Shares of a group above the threshold, with every bootstrap sample's threshold and weights.

    The replicates' deviations, divided by sqrt(R - 1), stand as influence values: groups and rates
    share the resamples, so differences know their covariance.
    """

    def __init__(self, scores: Scores, target: float, replicates: int, seed: int) -> None:
        self.scores, self.target, self.replicates = scores, target, replicates
        unit, no = scores.groups.unit, ~scores.member
        self.times = np.empty((replicates, len(unit)))
        for own, rows in enumerate((scores.member, no)):
            self.times[:, rows] = multiplicities(unit[rows], replicates, 2 * seed + own)
        self.cut = threshold_at(scores.score[no], target)
        times = self.times[:, no].astype(np.int64)
        self.cuts = np.array([threshold_at(np.repeat(scores.score[no], t), target) for t in times])
        self.few = len(np.unique(unit[no])) < round(1 / target)

    def rate(self, groups: Groups, column: int, members: bool) -> Estimate:
        """Share of a group's members, or non-members, at or above the threshold."""
        own = groups.members[groups.unit, column] & (self.scores.member == members)
        n = len(np.unique(groups.unit[own]))
        if n < MIN_UNITS:
            kind = "member" if members else "non-member"
            return not_estimable(self.replicates, n, f"fewer than {MIN_UNITS} {kind} subjects")
        score, times = self.scores.score[own], self.times[:, own]
        value = float(np.mean(score >= self.cut))
        with np.errstate(invalid="ignore"):  # a resample without anyone of the group
            drawn = np.sum(times * (score >= self.cuts[:, None]), axis=1) / times.sum(axis=1)
        usable = drawn[np.isfinite(drawn)]
        away = np.nan_to_num(drawn - usable.mean()) / np.sqrt(max(len(usable) - 1, 1))
        note = self._note(groups.keys[column] == OVERALL, members)
        limits = partial(rate_limits, value, n, float(np.sum(away**2)))
        return Estimate(value, away, n, float(n - 1), note, limits=limits)

    def _note(self, overall: bool, members: bool) -> str:
        parts = []
        if members:
            by_chance = f"{self.target:g}" if overall else "the level's own false-positive rate"
            parts.append(f"by chance: {by_chance}")
        if self.few:
            parts.append(
                f"fewer than {round(1 / self.target)} non-members: a false-positive rate of "
                f"{100 * self.target:g}% can't be resolved"
            )
        return "; ".join(parts)

    def advantage(self, groups: Groups, column: int) -> Estimate:
        """True minus false positives; not tested where one of them has no variance."""
        first, second = (self.rate(groups, column, members) for members in (True, False))
        gap = replace(combine([first, second], [1.0, -1.0]), n=first.n)
        if not np.isfinite(gap.value):
            return gap
        certain = not (first.standard_error > 0 and second.standard_error > 0)
        note = "no test: nobody, or everybody, above the threshold" if certain else ""
        influence = np.full(self.replicates, np.nan) if certain else gap.influence
        note = "; ".join(part for part in ("by chance: 0", self._note(False, False), note) if part)
        limits = partial(rate_difference, first, second)
        df = min(first.df, second.df)
        return Estimate(gap.value, influence, first.n, df, note, limits=limits)


def rate_limits(
    value: float, n: int, variance: float, confidence: float = 0.95
) -> tuple[float, float]:
    """Clopper and Pearson's limits of a rate at its effective n (Korn and Graubard 1998).

    The effective n is what a simple sample would need for the same variance, at most the number of
    subjects. A rate of 0 or 1 has an interval too.

    Parameters
    ----------
    value : float
    n : int
        Subjects.
    variance : float
        Of the rate, over subjects and thresholds.
    """
    size = float(n)
    if variance > 0 and 0 < value < 1:
        size = min(size, value * (1 - value) / variance)
    low, high = proportion_confint(value * size, size, alpha=1 - confidence, method="beta")
    return float(low), float(high)
