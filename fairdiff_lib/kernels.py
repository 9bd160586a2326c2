"""KID as a U-statistic over units, with the influence values that its inference needs.

h(i, j) = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i) for units i, j with real
images x and generated images y, averaged over the images of the two units. A group is a
column of a membership matrix, so all groups cost one pass over the kernel, in chunks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fairdiff_lib.config import InputError
from fairdiff_lib.estimators import u_statistic
from fairdiff_lib.inference import MIN_UNITS, Bools, Estimate, Floats, Groups, Ints

CHUNK = 1024  # rows of the kernel matrix held at once


@dataclass(frozen=True)
class Kernel:
    """Radial basis function k(x, y) = exp(-|x - y|^2 / (2 bandwidth^2))."""

    bandwidth: float  # in units of the features

    def __call__(self, left: Floats, right: Floats) -> Floats:  # [N, D], [P, D] => [N, P]
        """Kernel matrix."""
        block = squared_distances(left, right)
        block *= -0.5 / self.bandwidth**2
        return np.exp(block, out=block)

    def of_rows(self, left: Floats, right: Floats) -> Floats:  # [N, D], [N, D] => [N]
        """Kernel of row i with row i."""
        squares = np.sum((left - right) ** 2, axis=1)
        return np.asarray(np.exp(-0.5 * squares / self.bandwidth**2))


def squared_distances(left: Floats, right: Floats) -> Floats:  # [N, D], [P, D] => [N, P]
    """Squared Euclidean distances, from centred features (less rounding)."""
    centre = right.mean(axis=0)
    left, right = left - centre, right - centre
    block = left @ right.T
    block *= -2
    block += np.sum(left**2, axis=1)[:, None]
    block += np.sum(right**2, axis=1)[None, :]
    return np.maximum(block, 0, out=block)


def as_features(features: ArrayLike, what: str, rows: int | None = None) -> Floats:
    """Float64 [N, D]; refuses another shape, another number of rows, and non-finite values."""
    array = np.asarray(features, dtype=np.float64)
    if array.ndim != 2 or (rows is not None and len(array) != rows):
        wanted = "[N, D]" if rows is None else f"[{rows}, D]"
        raise InputError(f"{what}: shape {list(array.shape)}; expected {wanted}")
    if not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array).all(axis=1)))
        raise InputError(f"{what}: row {row} has a value that is not finite")
    return array


def fit_kernel(train_features: ArrayLike, seed: int = 0, rows: int = 2000) -> Kernel:
    """Kernel whose bandwidth is the median distance between real training images.

    Fixed before any generated image is seen, and the same for every method and group.

    Parameters
    ----------
    train_features : [N, D]
    seed : int
        Of the ``rows`` images that are drawn where there are more.

    Raises
    ------
    InputError
        Fewer than two images, or all of them equal.
    """
    features = as_features(train_features, "training features")
    if len(features) > rows:
        chosen = np.random.default_rng(seed).choice(len(features), rows, replace=False)
        features = features[chosen]
    upper = np.triu_indices(len(features), 1)
    squares = squared_distances(features, features)[upper] if len(features) > 1 else np.zeros(1)
    bandwidth = float(np.sqrt(np.median(squares)))
    if not bandwidth > 1e-12:
        raise InputError("training features: at least half of the pairs coincide; no bandwidth")
    return Kernel(bandwidth)


@dataclass(frozen=True)
class PairSums:
    """Sums of h over partners, per image and group, split by whose image varies.

    Attributes
    ----------
    real : float64 [N, M]
        For image row a of unit i: sum over the units j != i of group m of
        k(x_a, x_j) - k(x_a, y_j).
    generated : float64 [N, M]
        The same for k(y_a, y_j) - k(x_j, y_a).
    """

    real: Floats
    generated: Floats


def pair_sums(
    kernel: Kernel, real: Floats, generated: Floats, groups: Groups, chunk: int = CHUNK
) -> PairSums:
    """Sums over partners for all groups in one chunked pass.

    Parameters
    ----------
    real, generated : float64 [N, D]
        Row a of both belongs to unit ``groups.unit[a]``.
    """
    unit, members = groups.unit, groups.members.astype(np.float64)
    share = 1 / np.bincount(unit)[unit]  # an image's weight in its unit
    weights = members[unit] * share[:, None]  # [N, M]
    sums_x, sums_y = np.empty_like(weights), np.empty_like(weights)
    cross_y = np.zeros_like(weights)
    for start in range(0, len(unit), chunk):
        rows = slice(start, start + chunk)
        cross = kernel(real[rows], generated)
        sums_x[rows] = kernel(real[rows], real) @ weights - cross @ weights
        sums_y[rows] = kernel(generated[rows], generated) @ weights
        cross_y += cross.T @ weights[rows]
    sums_y -= cross_y
    a, b = same_unit_pairs(unit)
    crossed = kernel.of_rows(real[a], generated[b])
    own_x = (kernel.of_rows(real[a], real[b]) - crossed) * share[b]
    back = kernel.of_rows(generated[a], real[b])
    own_y = (kernel.of_rows(generated[a], generated[b]) - back) * share[b]
    sums_x -= np.bincount(a, weights=own_x, minlength=len(unit))[:, None] * members[unit]
    sums_y -= np.bincount(a, weights=own_y, minlength=len(unit))[:, None] * members[unit]
    return PairSums(sums_x, sums_y)


def same_unit_pairs(unit: Ints) -> tuple[Ints, Ints]:
    """All ordered pairs (a, b) of rows of one unit, a = b included."""
    order = np.argsort(unit, kind="stable")
    counts = np.bincount(unit)
    starts = np.cumsum(counts) - counts
    repeats = counts[unit]
    first = np.repeat(np.arange(len(unit)), repeats)
    offset = np.arange(len(first)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    return first, order[starts[unit[first]] + offset]


def kid(
    kernel: Kernel,
    real: ArrayLike,
    generated: ArrayLike,
    groups: Groups,
    source: Ints | None = None,
    chunk: int = CHUNK,
) -> list[Estimate]:
    """Unbiased KID of every group, against the group's own reals.

    Parameters
    ----------
    kernel : Kernel
        From :func:`fit_kernel` on training reals.
    real, generated : [N, D]
        Features; row a of both belongs to unit ``groups.unit[a]``.
    groups : Groups
    source : int64 [N], optional
        Unit that each generated image was made for, where rows were permuted.

    Returns
    -------
    list of Estimate
        In the order of ``groups.keys``; NaN with a reason below ``MIN_UNITS`` units.
    """
    x = as_features(real, "real features", len(groups.unit))
    y = as_features(generated, "generated features", len(groups.unit))
    if x.shape[1] != y.shape[1]:
        raise InputError(f"features: {x.shape[1]} columns real, {y.shape[1]} generated")
    sums = pair_sums(kernel, x, y, groups, chunk)
    return [
        u_statistic(sums.real[:, m], sums.generated[:, m], groups.unit, member, source)
        for m, member in enumerate(groups.members.T)
    ]


def real_floor(
    kernel: Kernel, real: Floats, unit: Ints, member: Bools, splits: int = 100, seed: int = 0
) -> Floats:
    """KID between two random halves of a group's reals: what noise alone gives.

    Half the group on each side, so the spread is wider than that of a KID at the group's n.
    Shown beside the KID, never subtracted.

    Returns
    -------
    float64 [splits]
        Empty where the group has too few units.
    """
    chosen = member[unit]
    _, owner = np.unique(unit[chosen], return_inverse=True)
    n = int(owner.max()) + 1 if len(owner) else 0
    if n < 2 * MIN_UNITS:
        return np.empty(0)
    rng = np.random.default_rng(seed)
    half = (np.argsort(rng.random((splits, n)), axis=1) < n // 2).T.astype(np.float64)  # [n, S]
    share = 1 / np.bincount(owner)[owner]
    sums = _sums_within(kernel, real[chosen], owner, share, np.column_stack([half, np.ones(n)]))
    to_first, to_second = sums[:, :-1], sums[:, -1:] - sums[:, :-1]
    m, k = n // 2, n - n // 2
    first = (half * to_first).sum(axis=0) / (m * (m - 1))
    second = ((1 - half) * to_second).sum(axis=0) / (k * (k - 1))
    return np.asarray(first + second - 2 * (half * to_second).sum(axis=0) / (m * k))


def _sums_within(kernel: Kernel, x: Floats, owner: Ints, share: Floats, weights: Floats) -> Floats:
    """Sum over units j != i of k(x_i, x_j) weights[j], averaged over images.  # [n, S]"""
    by_row = weights[owner] * share[:, None]
    sums = np.concatenate([kernel(x[s : s + CHUNK], x) @ by_row for s in range(0, len(x), CHUNK)])
    a, b = same_unit_pairs(owner)
    own = np.bincount(a, weights=kernel.of_rows(x[a], x[b]) * share[b], minlength=len(x))
    sums -= own[:, None] * weights[owner]
    totals = np.zeros_like(weights)
    np.add.at(totals, owner, sums * share[:, None])
    return totals
