"""Are generated images nearer to training images than to real ones that nobody trained on?

A generator that has not memorised cannot tell training from held-out subjects: exchanged, they
would give the same images. So half of the generated images lie nearer to a training image than to
any held-out one, whatever the feature space, as long as there are as many of both. Above a half,
training images were remembered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairdiff_lib.audit.audit import Estimator
from fairdiff_lib.audit.estimate import (
    MIN_UNITS,
    Bools,
    Estimate,
    Floats,
    Ints,
    not_estimable,
    without_error,
)
from fairdiff_lib.audit.kid import as_features, squared_distances
from fairdiff_lib.settings.errors import InputError

CHUNK = 512  # generated images at a time: bounds the memory
NEARER = "nearer_to_training"
NO_SIGNAL = 0.5  # the share that says nothing was remembered


class Pool:
    """Real images of one side, training or held-out, by subject.

    Parameters
    ----------
    features : [R, D]
    subjects, strata : sequences of str, length R
        Whose image it is, and which stratum the subject belongs to: draws take equally many
        subjects of both sides from each.
    """

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
    """Pairs of a training and a held-out subject of one stratum, at random, ``draws`` times.

    Of each stratum, as many pairs as its smaller side has subjects.

    Returns
    -------
    list of (int64 [K], int64 [K])
        Positions in ``train.names`` and in ``held.names``.
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

    Attributes
    ----------
    nearest : int64 [N, 2]
        Of the training and of the held-out subjects drawn, counted over both pools.
    nearer : float64 [N]
        1 where the training subject is the nearer one, 0 where not, 1/2 where equally near.
    drawn : int64 [2K]
        The subjects drawn, training first.
    stratum : int64 [2K]
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
    generated: ArrayLike,
    prompted: Sequence[str],
    train: Pool,
    held: Pool,
    draws: int = 20,
    seed: int = 0,
) -> Estimator:
    """Share of generated images that are nearer to a training than to any held-out subject.

    Each draw pairs training and held-out subjects of one stratum at random, so that both sides
    have the same n in every stratum; the share is the mean over draws. Where a prompt was taken
    from a held-out subject, that one and its partner are left out for it: nobody's own conditions
    make a reference more alike.

    Intervals and contrasts are over the *reference* subjects (see :meth:`Draw.influence`; degrees
    of freedom after Satterthwaite), which includes what other generated images would change. They
    are exact in size where nothing was memorised, and too wide where much was.

    Parameters
    ----------
    generated : [N, D]
    prompted : sequence of str, length N
        Subject that each image's prompt was taken from.
    train, held : Pool
        Subjects that the generator was trained on, and others of the same population.
    draws, seed : int

    Raises
    ------
    InputError
        Features of another shape, or fewer than ten pairs.
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
    return lambda groups: [
        _share(found, groups.unit, member, subjects) for member in groups.members.T
    ]


def _share(draws: Sequence[Draw], unit: Ints, member: Bools, subjects: int) -> Estimate:
    """A group's share, mean over draws."""
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
    return Estimate(value, influence, n, df, note)
