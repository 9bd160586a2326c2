"""Further looks at one group's images: told apart? dense and covering? copies of each other?

A classifier two-sample test is bounded and needs no kernel; clipped density and coverage don't
follow single outliers; near-identical generated images break the assumption of every interval here,
that images of different subjects were drawn independently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from fairdiff_lib.audit.audit import Audit, Estimator
from fairdiff_lib.audit.contrasts import GROUP_COLUMNS
from fairdiff_lib.audit.estimate import (
    MIN_UNITS,
    Bools,
    Estimate,
    Floats,
    Groups,
    Ints,
    Levels,
    not_estimable,
    without_error,
)
from fairdiff_lib.audit.estimators import mean_of_rows
from fairdiff_lib.audit.kid import as_features, squared_distances
from fairdiff_lib.settings.errors import InputError

SEPARABLE = 0.98  # accuracy from which a two-sample test says nothing of how far
FOLDS_SHARE = 1.3  # standard errors: folds share training images, most where little is to be told
RIDGE = 0.1  # of the mean variance, added to the pooled covariance
FOLDS = 5
NEIGHBOURS = 5
CLIPPED = ("clipped_density", "clipped_coverage")
DRAWS = 20  # random subsets of equal n
ALIKE = 0.5  # of the distance that 1% of the real images fall short of to their nearest
CHUNK = 1024  # rows of a matrix of distances at a time
MOST_COPIES = 0.05  # share of a group's images with a twin, above which no interval is given


# -- told apart ------------------------------------------------------------------------------


def c2st_metric(
    real: ArrayLike, generated: ArrayLike, folds: int = FOLDS, seed: int = 0
) -> Estimator:
    """Accuracy, by group, with which a linear classifier tells generated from real [N, D].

    Lopez-Paz and Oquab (2017, arXiv 1610.06545): 0.5 where it can't. One discriminant for all
    groups (Fisher's, with a ridge), fitted on the other folds; folds are of whole subjects, and
    standard errors are ``FOLDS_SHARE`` times those of one fixed classifier. Not given from
    ``SEPARABLE`` on: there it doesn't say how far apart the two are.
    """

    def metric(groups: Groups) -> list[Estimate]:
        x = as_features(real, "real features", len(groups.unit))
        y = as_features(generated, "generated features", len(groups.unit))
        right = _told_apart(x, y, groups.unit, folds, seed)
        unit = np.concatenate([groups.unit, groups.unit])
        found = [mean_of_rows(right, unit, own, bounded=True) for own in groups.members.T]
        return [_below(one) for one in found]

    return metric


def _below(found: Estimate) -> Estimate:
    if not found.value >= SEPARABLE:
        return replace(found, influence=FOLDS_SHARE * found.influence)
    reason = f"told apart in {found.value:.0%}, which doesn't say how far apart"
    return not_estimable(len(found.influence), found.n, reason)


def _told_apart(x: Floats, y: Floats, unit: Ints, folds: int, seed: int) -> Floats:  # [2N]
    """Whether each real, then each generated image was recognised as what it is, 0 or 1."""
    units = int(unit.max()) + 1
    fold = (np.random.default_rng(seed).permutation(units) % folds)[unit]
    right = np.empty((2, len(unit)))
    for k in range(folds):
        test, train = fold == k, fold != k
        means = x[train].mean(axis=0), y[train].mean(axis=0)
        within = np.concatenate([x[train] - means[0], y[train] - means[1]])
        pooled = within.T @ within / (len(within) - 2)
        pooled += RIDGE * np.trace(pooled) / len(pooled) * np.eye(len(pooled))
        towards = np.linalg.solve(pooled, means[1] - means[0])
        middle = float(towards @ (means[0] + means[1]) / 2)
        right[0, test] = x[test] @ towards <= middle
        right[1, test] = y[test] @ towards > middle
    return right.ravel()


# -- density and coverage at equal n ---------------------------------------------------------


def clipped_scores(
    real: Floats, generated: Floats, neighbours: int = NEIGHBOURS
) -> tuple[float, float]:
    """Clipped density and clipped coverage (arXiv 2507.01761) of features [N, D] and [P, D].

    A ball around each real image reaches to its ``neighbours``-th real neighbour, but no further
    than the median ball, so that no outlier vouches for much. Density: over generated images, balls
    it lies in, in ``neighbours``, at most 1; in units of what real images get among themselves.
    Coverage: over real images, generated ones in its own (unclipped) ball, in ``neighbours``, at
    most 1. The paper's calibration of coverage is left out: compare at equal n.
    """
    within = squared_distances(real, real)
    np.fill_diagonal(within, np.inf)
    reach = np.partition(within, neighbours - 1, axis=1)[:, neighbours - 1]
    ball = np.minimum(reach, np.median(reach))
    cross = squared_distances(real, generated)

    def density(distances: Floats) -> float:
        return float(np.minimum((distances <= ball[:, None]).sum(axis=0) / neighbours, 1).mean())

    own = density(within)
    covered = np.minimum((cross <= reach[:, None]).sum(axis=1) / neighbours, 1).mean()
    return min(density(cross) / own, 1.0) if own > 0 else float("nan"), float(covered)


def equal_n_rows(
    real: ArrayLike, generated: ArrayLike, groups: Groups, attributes: Levels, seed: int = 0
) -> pd.DataFrame:
    """Clipped density and coverage of every level, at the n of its attribute's smallest level.

    Means over ``DRAWS`` random subsets of so many subjects with one image each; low to high holds
    95% of the draws, which is no interval for other patients. The smallest level is one set,
    without such a range. Levels below ``MIN_UNITS`` stay out.
    """
    x = as_features(real, "real features", len(groups.unit))
    y = as_features(generated, "generated features", len(groups.unit))
    first = np.unique(groups.unit, return_index=True)[1]  # an image of each unit
    rng, rows = np.random.default_rng(seed), []
    for name, levels in attributes.items():
        owners = {level: first[groups.column(name, level)] for level in levels}
        least = min((len(o) for o in owners.values() if len(o) >= MIN_UNITS), default=0)
        for level, own in owners.items():
            note = f"at {least} subjects a level; low to high: 95% of {DRAWS} random subsets"
            if len(own) < MIN_UNITS:
                drawn = np.full((1, 2), np.nan)
                note = f"not estimable: fewer than {MIN_UNITS} subjects"
            elif len(own) == least:
                drawn = np.array([clipped_scores(x[own], y[own])])
                note = f"all of its {least} subjects: there are no subsets to range over"
            else:
                picks = [rng.permutation(own)[:least] for _ in range(DRAWS)]
                drawn = np.array([clipped_scores(x[pick], y[pick]) for pick in picks])
            for metric, values in zip(CLIPPED, drawn.T, strict=True):
                ends = np.quantile(values, [0.025, 0.975]) if len(values) > 1 else (np.nan, np.nan)
                low, high = ends
                rows.append((name, level, metric, len(own), values.mean(), low, high, note))
    return pd.DataFrame(rows, columns=list(GROUP_COLUMNS))


# -- copies ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Copies:
    """Sets of images that are nearly the same.

    Attributes
    ----------
    cluster : int64 [P]
        Set of each image; an image without a twin has one of its own.
    twinned : bool [P]
        Whether an image has a twin.
    what, like : str
        In words: whose images, and what they are.
    """

    cluster: Ints
    twinned: Bools
    what: str = "generated images"
    like: str = "nearly identical to another one"

    def caveat(self, names: Sequence[str]) -> str:
        """How many there are and which, in a sentence; empty without one."""
        if not self.twinned.any():
            return ""
        sizes = np.bincount(self.cluster)
        largest = np.flatnonzero(self.cluster == sizes.argmax())
        few = ", ".join(str(names[k]) for k in largest[:3]) + ", ..." * (len(largest) > 3)
        sets, some = int((sizes > 1).sum()), int(self.twinned.sum())
        return (
            f"{some:,} of {len(self.twinned):,} {self.what} are {self.like} "
            f"({sets:,} set{'s' * (sets > 1)}, the largest of {len(largest):,}: {few})."
        )

    def rows(self, made: Groups) -> pd.DataFrame:
        """Share of each group's images that have a twin: ``near_identical``, in GROUP_COLUMNS."""
        rows = []
        for (name, level), member in zip(made.keys, made.members.T, strict=True):
            own = self.twinned[member[made.unit]]
            share = float(own.mean()) if len(own) else np.nan
            note = f"{own.sum():,} of {len(own):,} images are nearly identical to another one"
            rows.append((name, level, "near_identical", member.sum(), share, np.nan, np.nan, note))
        return pd.DataFrame(rows, columns=list(GROUP_COLUMNS))

    def guard(self, one: Audit, made: Groups, most: float = MOST_COPIES) -> Audit:
        """The audit without intervals for groups with more copies than ``most`` of their images.

        Copies are no independent draws: with 25 draws behind 880 images a 95% interval holds the
        truth in 47%. ``made``: groups of these images, with the audit's keys.
        """
        found = {}
        for key, estimate in one.estimates.items():
            own = self.twinned[made.column(*key)[made.unit]]
            share = float(own.mean()) if len(own) else 0.0
            found[key] = estimate if share <= most else self._bare(estimate, share)
        return replace(one, estimates=found)

    def _bare(self, one: Estimate, share: float) -> Estimate:
        if not np.isfinite(one.value):
            return one
        reason = f"{share:.0%} of its {self.what} are {self.like}"
        return without_error(one.value, np.ones(len(one.influence), dtype=bool), one.n, reason)


def near_copies(generated: ArrayLike, real: ArrayLike, unit: Ints, alike: float = ALIKE) -> Copies:
    """Generated images [P, D] that lie closer together than real ones of different subjects do.

    Closer than ``alike`` x the distance that only 1% of the real images [N, D] (of subjects
    ``unit`` [N]) fall short of to their nearest one of another subject; chains make one set. Where
    generated images are all less varied than real ones, the distance shrinks with their median
    distance: little variety is no copying, and its draws are independent.
    """
    x, y = as_features(real, "real features", len(unit)), as_features(generated, "generated")
    if len(np.unique(unit)) < MIN_UNITS:
        raise InputError(f"near-identical images: expected at least {MIN_UNITS} real subjects")
    nearest = []
    for start in range(0, len(x), CHUNK):
        apart = squared_distances(x[start : start + CHUNK], x)
        apart[unit[start : start + CHUNK, None] == unit[None, :]] = np.inf
        nearest.append(apart.min(axis=1))
    least = alike**2 * float(np.quantile(np.concatenate(nearest), 0.01))
    variety = [float(np.median(squared_distances(z[:CHUNK], z))) for z in (y, x)]
    least *= min(1.0, variety[0] / max(variety[1], 1e-300))
    least += 1e-9 * float(np.mean(y**2) + 1e-12)  # rounding of a distance of 0
    near = sparse.vstack(
        [
            sparse.csr_matrix((squared_distances(y[k : k + CHUNK], y) <= least).astype(np.int8))
            for k in range(0, len(y), CHUNK)
        ]
    )
    cluster = connected_components(near, directed=False)[1].astype(np.int64)
    return Copies(cluster, np.bincount(cluster)[cluster] > 1)
