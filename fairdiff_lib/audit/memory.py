"""What did the generator remember? Nearest training images and membership inference, by group.

A generator that has not memorised cannot tell training from held-out subjects: exchanged, they
would give the same images. So half of the generated images lie nearer to a training image than to
any held-out one, whatever the feature space, as long as there are as many of both. Above a half,
training images were remembered.

Membership inference scores an image by minus its denoising loss: a model denoises better what it
has memorised. By group: the AUC, and the share of members found at a threshold that wrongly names
few non-members (Carlini et al. 2022), the same threshold for everybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from statsmodels.stats.proportion import proportion_confint

from fairdiff_lib.audit.audit import Audit, Estimator, auc_metric, each_group, exploratory_audits
from fairdiff_lib.audit.estimate import (
    MIN_UNITS,
    OVERALL,
    Bools,
    Estimate,
    Floats,
    Groups,
    Ints,
    Levels,
    combine,
    not_estimable,
    rate_difference,
    without_error,
)
from fairdiff_lib.audit.estimators import multiplicities
from fairdiff_lib.audit.harm import threshold_at
from fairdiff_lib.audit.kid import as_features, squared_distances
from fairdiff_lib.settings.errors import InputError

CHUNK = 512  # generated images at a time: bounds the memory
NEARER = "nearer_to_training"
NO_SIGNAL = 0.5  # the share that says nothing was remembered
AUC, FOUND, ALARMED, ADVANTAGE = (
    f"membership_{name}" for name in ("auc", "tpr", "fpr", "advantage")
)
CONTRASTED = (AUC, ADVANTAGE)  # a rate at one threshold also differs where a level is easier


class Pool:
    """Real images [R, D] of one side, training or held-out, by subject, each of one stratum."""

    def __init__(self, features: ArrayLike, subjects: Sequence[str], strata: Sequence[str]) -> None:
        self.features = as_features(features, "real features", len(subjects))
        self.names, first, owner = np.unique(
            np.asarray(subjects, dtype=object), return_index=True, return_inverse=True
        )
        self.owner: Ints = owner.astype(np.int64)  # [R]
        named = np.asarray(strata, dtype=object)
        self.strata = named[first]  # [U]
        if (named != self.strata[self.owner]).any():
            row = int(np.argmax(named != self.strata[self.owner]))
            raise InputError(f"subject {subjects[row]!r}: two strata; expected one")

    def distances(self, generated: Floats) -> Floats:
        """Squared distance of each generated image to each subject's nearest.  # [N, U]"""
        order = np.argsort(self.owner, kind="stable")
        starts = np.searchsorted(self.owner[order], np.arange(len(self.names)))
        parts = [generated[at : at + CHUNK] for at in range(0, len(generated), CHUNK)]
        blocks = [squared_distances(part, self.features[order]) for part in parts]
        return np.concatenate([np.minimum.reduceat(block, starts, axis=1) for block in blocks])


def matched_draws(train: Pool, held: Pool, draws: int, seed: int) -> list[tuple[Ints, Ints]]:
    """``draws`` times: random pairs of a training and a held-out subject of one stratum.

    Of each stratum, as many as its smaller side has subjects. Positions in both ``names``.
    """
    common = sorted(set(train.strata) & set(held.strata))
    found = []
    for child in np.random.SeedSequence(seed).spawn(draws):
        rng = np.random.default_rng(child)
        sides: tuple[list[Ints], list[Ints]] = ([], [])
        for stratum in common:
            pools = [np.flatnonzero(side.strata == stratum) for side in (train, held)]
            least = min(map(len, pools))
            for side, pool in zip(sides, pools, strict=True):
                side.append(rng.permutation(pool)[:least].astype(np.int64))
        empty = np.zeros(0, dtype=np.int64)
        found.append((np.concatenate([empty, *sides[0]]), np.concatenate([empty, *sides[1]])))
    return found


@dataclass(frozen=True)
class Draw:
    """Which reference subject each generated image is nearest to, in one draw of pairs.

    ``nearest`` [N, 2]: of the training and of the held-out subjects drawn, counted over both pools;
    ``nearer`` [N]: 1 where the training subject is the nearer one, 1/2 where equally near;
    ``drawn`` [2K]: the subjects drawn, training first; ``stratum`` [2K].
    """

    nearest: Ints
    nearer: Floats
    drawn: Ints
    stratum: Ints

    def influence(self, weight: Floats, subjects: int) -> Floats:
        """Influence of each subject on the share of images, weights summing to 1.  # [subjects]

        With the generated images and all references fixed, what is random under the null is only
        which side a reference is on. The share is then a sum of the masses m_j (weight of the
        images nearest to j) of the training side, and its randomisation variance within strata of
        2 k subjects is sum_j ((m_j - mean) / 2)^2 2k / (2k - 1): what a subject adds to it.
        """
        mass = np.zeros(subjects)
        np.add.at(mass, self.nearest[:, 0], weight * self.nearer)
        np.add.at(mass, self.nearest[:, 1], weight * (1 - self.nearer))
        size = np.bincount(self.stratum)
        mean = np.bincount(self.stratum, weights=mass[self.drawn]) / size
        centred = (mass[self.drawn] - mean[self.stratum]) / 2
        centred *= np.sqrt(size / (size - 1))[self.stratum]
        centred[len(centred) // 2 :] *= -1  # held-out
        found = np.zeros(subjects)
        found[self.drawn] = centred
        return found


def _draw(
    to_train: Floats,
    to_held: Floats,
    own: Ints,
    pair: tuple[Ints, Ints],
    strata: NDArray[np.object_],
) -> Draw:
    """Nearest subjects of one draw; ``own`` is each prompt's subject among the held-out, or -1."""
    first, second = to_train[:, pair[0]], to_held[:, pair[1]]
    same = own[:, None] == pair[1]  # a prompt's own subject, and who was drawn with it
    first[same] = second[same] = np.inf
    at = np.stack([first.argmin(axis=1), second.argmin(axis=1)], axis=1)
    rows = np.arange(len(own))
    left, right = first[rows, at[:, 0]], second[rows, at[:, 1]]
    nearer = np.where(left == right, 0.5, (left < right).astype(float))
    nearest = np.stack([pair[0][at[:, 0]], to_train.shape[1] + pair[1][at[:, 1]]], axis=1)
    drawn = np.concatenate([pair[0], to_train.shape[1] + pair[1]])
    stratum = np.unique(strata[pair[0]], return_inverse=True)[1].astype(np.int64)
    return Draw(nearest, nearer, drawn, np.concatenate([stratum, stratum]))


def nearer_metric(
    generated: ArrayLike, prompted: Sequence[str], train: Pool, held: Pool, draws: int = 20,
    seed: int = 0,
) -> Estimator:  # fmt: skip
    """Share of generated images that are nearer to a training than to any held-out subject.

    Each draw pairs training and held-out subjects of one stratum at random, so that both sides have
    the same n in every stratum; the share is the mean over draws. Where a prompt was taken from a
    held-out subject (``prompted``), that one and its partner are left out for it: nobody's own
    conditions make a reference more alike.

    Intervals and contrasts are over the *reference* subjects (see :meth:`Draw.influence`; degrees
    of freedom after Satterthwaite), which includes what other generated images would change. They
    are exact in size where nothing was memorised, and too wide where much was. InputError for fewer
    than ten pairs.
    """
    made = as_features(generated, "generated features", len(prompted))
    pairs = matched_draws(train, held, draws, seed)
    count = len(pairs[0][0])
    if count < MIN_UNITS:
        raise InputError(
            f"nearest real image: {count} pairs of a training and a held-out subject of one "
            f"stratum; expected at least {MIN_UNITS}"
        )
    to_train, to_held = train.distances(made), held.distances(made)
    place = {name: at for at, name in enumerate(held.names)}
    own = np.array([place.get(name, -1) for name in prompted], dtype=np.int64)
    found = [_draw(to_train, to_held, own, pair, train.strata) for pair in pairs]
    subjects = len(train.names) + len(held.names)
    return each_group(partial(_share, found, subjects))


def _share(draws: Sequence[Draw], subjects: int, unit: Ints, member: Bools) -> Estimate:
    n = int(member.sum())
    if n < MIN_UNITS:
        return not_estimable(subjects, n, f"fewer than {MIN_UNITS} subjects")
    weight = member[unit] / member[unit].sum()  # of an image
    value = float(np.mean([weight @ one.nearer for one in draws]))
    influence = np.mean([one.influence(weight, subjects) for one in draws], axis=0)
    squares = influence**2
    if not squares.sum() > 0:
        everyone = np.ones(subjects, dtype=bool)
        return without_error(value, everyone, n, "every reference subject is nearest equally often")
    df = float(squares.sum() ** 2 / np.sum(squares**2))
    note = "" if df >= MIN_UNITS else "rests on few real images, which are nearest to most others"
    return Estimate(value, influence, n, df, note, bounds=(0.0, 1.0))


@dataclass(frozen=True)
class Scores:
    """What an attacker knows of every real image, members and non-members together.

    ``score`` [N] is higher for a likelier member, ``member`` [N] says whether the generator was
    trained on it; a subject is one or the other.
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
    scores: Scores, attributes: Levels, *, false_positives: float = 0.01, bootstrap: int = 400,
    seed: int = 0, **sizes: Any,
) -> dict[str, Audit]:  # fmt: skip
    """Audits of membership inference, by metric; all exploratory.

    membership_auc (DeLong's intervals); membership_tpr and membership_fpr of the group, at the one
    threshold that all non-members together set for ``false_positives`` of new ones;
    membership_advantage, their difference. ``bootstrap`` replicates, of members and of non-members,
    set the threshold anew.
    """
    rates = _Rates(scores, false_positives, bootstrap, seed)
    truth = scores.member.astype(np.int64)
    metrics: dict[str, Estimator] = {
        AUC: auc_metric(truth, np.column_stack([-scores.score, scores.score])),
        FOUND: lambda groups: [rates.rate(groups, k, True) for k in range(len(groups.keys))],
        ALARMED: lambda groups: [rates.rate(groups, k, False) for k in range(len(groups.keys))],
        ADVANTAGE: lambda groups: [rates.advantage(groups, k) for k in range(len(groups.keys))],
    }
    low = tuple(metrics)
    return exploratory_audits(metrics, scores.groups, attributes, low, seed=seed, **sizes)


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
        return Estimate(value, away, n, float(n - 1), note, limits=limits, bounds=(0.0, 1.0))

    def _note(self, overall: bool, members: bool) -> str:
        by_chance = f"{self.target:g}" if overall else "the level's own false-positive rate"
        few = (
            f"fewer than {round(1 / self.target)} non-members: a false-positive rate of "
            f"{100 * self.target:g}% can't be resolved"
        )
        return "; ".join([f"by chance: {by_chance}"] * members + [few] * self.few)

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
        return Estimate(gap.value, influence, first.n, df, note, limits=limits, bounds=(-1.0, 1.0))


def rate_limits(
    value: float, n: int, variance: float, confidence: float = 0.95
) -> tuple[float, float]:
    """Clopper and Pearson's limits of a rate at its effective n (Korn and Graubard 1998).

    The effective n is what a simple sample would need for the same variance (over subjects and
    thresholds), at most the number of subjects. A rate of 0 or 1 has an interval too.
    """
    size = float(n)
    if variance > 0 and 0 < value < 1:
        size = min(size, value * (1 - value) / variance)
    low, high = proportion_confint(value * size, size, alpha=1 - confidence, method="beta")
    return float(low), float(high)
