"""KID as a U-statistic over units, with the influence values that its inference needs.

h(i, j) = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i) for units i, j with real
images x and generated images y, averaged over the images of the two units. A group is a
column of a membership matrix, so all groups cost one pass over the kernel.

KID is a squared distance whose standard error grows with it: estimate and error are correlated, so
that a t-interval of a small group is too short above and too long below. "This group is worse", the
harm that an audit is for, would be found at a true level of 0.1 to 1% in place of 2.5%. So limits
are made on the scale of its root, skewed where few images make the distance
(:func:`estimate.root_limits`), also those of differences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairdiff_lib.audit.estimate import (
    MIN_UNITS,
    Bools,
    Estimate,
    Floats,
    Groups,
    Ints,
    combine,
    not_estimable,
)
from fairdiff_lib.audit.estimators import u_statistic, unless_alike
from fairdiff_lib.settings.errors import InputError, refuse_unknown

CHUNK = 256  # rows and columns of a kernel block: one that stays in the processor's cache
SINGLE_ABOVE = 4096  # images, real and generated, from which float32 products are worth it
SINGLE_REACH = 10.0  # bandwidths from the centre, up to which float32 products are safe
MOST_ROWS = 2000  # training images that the bandwidth is found from
MIN_STRATUM = 5  # units of a group that each condition level needs for a standardised KID


def partner_sums(
    bandwidth: float,
    rows: Floats,
    unit: Ints,
    share: Floats,
    basis: Floats | Bools,
    exact: bool | None = None,
    chunk: int = CHUNK,
) -> Floats:
    """For each row a: sum over the rows b of *other* units of k(a, b) share[b] basis[unit[b]].

    Of rows [R, D], real and generated alike; ``share`` [R] is an image's weight in its unit, signed
    as in h; ``basis`` [U, C] has a column per sum that is wanted, as the members of a group.
    ``exact``: float64 products, else float32 ones unless an image lies more than ``SINGLE_REACH``
    bandwidths from the centre; None goes by the number of images. Returns [R, C].
    """
    wide = np.asarray(basis, dtype=np.float64)
    kinds, kind = np.unique(wide, axis=0, return_inverse=True)
    if len(kinds) < wide.shape[1]:  # overlapping groups are unions of fewer kinds of units
        wide, mix = np.eye(len(kinds))[kind.ravel()], kinds
    else:
        mix = np.eye(wide.shape[1])
    by_row = wide[unit]
    sums = _all_sums(bandwidth, rows, by_row * share[:, None], exact, chunk)
    sums -= _own_sums(bandwidth, rows, unit, share)[:, None] * by_row
    return np.asarray(sums @ mix)


def _all_sums(
    bandwidth: float, rows: Floats, weights: Floats, exact: bool | None, chunk: int
) -> Floats:  # [R, D], [R, C] => [R, C]
    """Kernel matrix times weights, each block above the diagonal used for both its sides."""
    points, half = _scaled(bandwidth, rows, exact)
    sums = np.zeros_like(weights)
    for start in range(0, len(rows), chunk):
        here = slice(start, start + chunk)
        for other in range(start, len(rows), chunk):
            there = slice(other, other + chunk)
            block = np.subtract(points[here] @ points[there].T, half[here, None], dtype=np.float64)
            block -= half[None, there]
            np.exp(np.minimum(block, 0, out=block), out=block)
            if other > start:
                sums[there] += block.T @ weights[here]
            else:
                np.fill_diagonal(block, 1)  # exactly what is taken off again for own rows
            sums[here] += block @ weights[there]
    return sums


def _scaled(
    bandwidth: float, rows: Floats, exact: bool | None
) -> tuple[NDArray[np.floating], Floats]:  # [R, D], [R]
    """Centred rows in bandwidths, float32 where that is safe, and half their squared norms.

    With these, the exponent of the kernel is the inner product less both halves.
    """
    points: NDArray[np.floating] = rows - rows.mean(axis=0)
    points /= bandwidth
    half = 0.5 * np.einsum("nd,nd->n", points, points)
    single = len(rows) > SINGLE_ABOVE if exact is None else not exact
    if single and half.max() <= 0.5 * SINGLE_REACH**2:
        points = points.astype(np.float32)
        half = 0.5 * np.einsum("nd,nd->n", points, points, dtype=np.float64)
    return points, half


def _own_sums(bandwidth: float, rows: Floats, unit: Ints, share: Floats) -> Floats:  # [R]
    """Sum over the rows b of a row's own unit, itself included, of k(a, b) share[b]."""
    first, second = same_unit_pairs(unit)
    first, second = first[first < second], second[first < second]
    sums = share.copy()  # k(a, a) = 1
    for start in range(0, len(first), CHUNK):  # a copy of two rows per pair: not all at once
        a, b = first[start : start + CHUNK], second[start : start + CHUNK]
        apart = rows[a] - rows[b]
        values = np.exp(-0.5 * np.einsum("nd,nd->n", apart, apart) / bandwidth**2)
        np.add.at(sums, a, values * share[b])
        np.add.at(sums, b, values * share[a])
    return sums


def same_unit_pairs(unit: Ints) -> tuple[Ints, Ints]:
    """All ordered pairs (a, b) of rows of one unit, a = b included."""
    order = np.argsort(unit, kind="stable")
    counts = np.bincount(unit)
    starts = np.cumsum(counts) - counts
    repeats = counts[unit]
    first = np.repeat(np.arange(len(unit)), repeats)
    offset = np.arange(len(first)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    return first, order[starts[unit[first]] + offset]


@dataclass(frozen=True)
class Kernel:
    """Radial basis function k(x, y) = exp(-|x - y|^2 / (2 bandwidth^2))."""

    bandwidth: float  # in units of the features

    def __call__(self, left: Floats, right: Floats) -> Floats:  # [N, D], [P, D] => [N, P]
        """Kernel matrix."""
        block = squared_distances(left, right)
        block *= -0.5 / self.bandwidth**2
        return np.exp(block, out=block)


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
    """Float64 [N, D]; refuses what is no array of numbers, another shape, non-finite values."""
    try:
        array = np.asarray(features, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what}: {error}; expected an array of numbers, [N, D]") from error
    if array.ndim != 2 or (rows is not None and len(array) != rows):
        wanted = "[N, D]" if rows is None else f"[{rows}, D]"
        raise InputError(f"{what}: shape {list(array.shape)}; expected {wanted}")
    if not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array).all(axis=1)))
        raise InputError(f"{what}: row {row} has a value that is not finite")
    return array


def fit_kernel(train_features: ArrayLike, seed: int = 0) -> Kernel:
    """Kernel whose bandwidth is the median distance between real training images [N, D].

    Fixed before any generated image is seen, and the same for every method and group. At most
    ``MOST_ROWS`` images are drawn. InputError for fewer than two images, or where all are equal.
    """
    features = as_features(train_features, "training features")
    if len(features) > MOST_ROWS:
        chosen = np.random.default_rng(seed).choice(len(features), MOST_ROWS, replace=False)
        features = features[chosen]
    upper = np.triu_indices(len(features), 1)
    squares = squared_distances(features, features)[upper] if len(features) > 1 else np.zeros(1)
    bandwidth = float(np.sqrt(np.median(squares)))
    if not bandwidth > 1e-12:
        raise InputError("training features: at least half of the pairs coincide; no bandwidth")
    return Kernel(bandwidth)


def _share(unit: Ints) -> Floats:  # [R] => [R]
    """An image's weight in the mean over its unit."""
    return np.asarray(1 / np.bincount(unit)[unit])


def unit_means(values: Floats, unit: Ints, units: int) -> Floats:  # [R, C] => [U, C]
    """Mean over the images of each unit; zero for a unit without one."""
    means = np.zeros((units, values.shape[1]))
    np.add.at(means, unit, values * _share(unit)[:, None])
    return means


@dataclass(frozen=True)
class PairSums:
    """Sums of h over partners, per image and group, split by whose image varies.

    ``real`` [N, M]: for real image a of unit i, over the units j != i of group m, of k(x_a, x_j) -
    k(x_a, y_j). ``generated`` [P, M]: the same of k(y_a, y_j) - k(x_j, y_a).
    """

    real: Floats
    generated: Floats


def pair_sums(
    kernel: Kernel,
    real: Floats,
    generated: Floats,
    groups: Groups,
    generated_unit: Ints | None = None,
    exact: bool | None = None,
    chunk: int = CHUNK,
) -> PairSums:
    """Sums of h over partners for all groups; parameters as in :func:`kid`."""
    own = groups.unit if generated_unit is None else generated_unit
    unit = np.concatenate([groups.unit, own])
    share = np.concatenate([_share(groups.unit), -_share(own)])
    rows = np.concatenate([real, generated])
    sums = partner_sums(kernel.bandwidth, rows, unit, share, groups.members, exact, chunk)
    return PairSums(sums[: len(real)], -sums[len(real) :])


def _features(real: ArrayLike, generated: ArrayLike, n: int, p: int) -> tuple[Floats, Floats]:
    """Both feature arrays, [N, D] and [P, D], checked."""
    x = as_features(real, "real features", n)
    y = as_features(generated, "generated features", p)
    if x.shape[1] != y.shape[1]:
        raise InputError(f"features: {x.shape[1]} columns real, {y.shape[1]} generated")
    return x, y


def _generated_unit(groups: Groups, generated_unit: Ints | None) -> Ints:  # [P]
    """Unit of each generated image; every unit must have one."""
    own = groups.unit if generated_unit is None else np.asarray(generated_unit, dtype=np.int64)
    units = len(groups.members)
    outside = own[(own < 0) | (own >= units)]
    if len(outside):
        raise InputError(f"generated images: unit {outside[0]}; expected 0 to {units - 1}")
    without = units - len(np.unique(own))
    if without:
        raise InputError(
            f"generated images: none for {without} of {units} subjects; expected one or more each"
        )
    return own


def kid(
    kernel: Kernel,
    real: ArrayLike,
    generated: ArrayLike,
    groups: Groups,
    source: Ints | None = None,
    *,
    generated_unit: Ints | None = None,
    exact: bool | None = None,
    chunk: int = CHUNK,
) -> list[Estimate]:
    """Unbiased KID of every group, against the group's own reals.

    Parameters
    ----------
    kernel : Kernel
        From :func:`fit_kernel` on training reals.
    real, generated : [N, D], [P, D]
        Features; row a belongs to unit ``groups.unit[a]``, generated ones to ``generated_unit``
        where they don't go row by row.
    source : int64 [N], optional
        Unit that each generated image was made for, where rows were permuted.
    exact : bool, optional
        As in :func:`partner_sums`.

    Returns
    -------
    list of Estimate
        In the order of ``groups.keys``; NaN with a reason below ``MIN_UNITS`` units.
    """
    if source is not None and generated_unit is not None:
        raise InputError("KID: source holds for images that pair row by row, not by unit")
    own = _generated_unit(groups, generated_unit)
    x, y = _features(real, generated, len(groups.unit), len(own))
    sums = pair_sums(kernel, x, y, groups, own, exact, chunk)
    units, unit = len(groups.members), groups.unit
    if source is None:
        unit = np.arange(units)
        sums = PairSums(
            unit_means(sums.real, groups.unit, units), unit_means(sums.generated, own, units)
        )
    found = [
        u_statistic(sums.real[:, m], sums.generated[:, m], unit, member, source)
        for m, member in enumerate(groups.members.T)
    ]
    return [
        unless_alike(replace(one, rooted=True), member)
        for one, member in zip(found, groups.members.T, strict=True)
    ]


def kid_unpaired(
    kernel: Kernel, real: ArrayLike, generated: ArrayLike, groups: Groups, generated_groups: Groups
) -> list[Estimate]:
    """Unbiased KID of every group, real and generated images of different units.

    The two-sample U-statistic: mean k(x_i, x_j) over i != j, plus mean k(y_i, y_j) over i != j,
    less twice mean k(x_i, y_j). Its variance is the sum of the two jackknives. Influence over the
    real units, then the generated ones; ``n`` is the smaller of the two numbers of units, since
    that one limits what is known. Both groups have the same keys.
    """
    if groups.keys != generated_groups.keys:
        raise InputError("KID: real and generated images have different groups; expected the same")
    x, y = _features(real, generated, len(groups.unit), len(generated_groups.unit))
    first, second = groups.members, generated_groups.members
    unit = np.concatenate([groups.unit, len(first) + generated_groups.unit])
    # partners among the reals, then among the generated
    basis = np.block([[first, np.zeros_like(first)], [np.zeros_like(second), second]])
    sums = partner_sums(kernel.bandwidth, np.concatenate([x, y]), unit, _share(unit), basis)
    to_real, to_made = np.split(unit_means(sums, unit, len(basis)), 2, axis=1)
    in_real, in_made = np.split(basis, 2, axis=1)
    return [
        _two_sample(to_real[:, m], to_made[:, m], in_real[:, m], in_made[:, m])
        for m in range(len(groups.keys))
    ]


def _two_sample(to_real: Floats, to_made: Floats, in_real: Bools, in_made: Bools) -> Estimate:
    """A group's unpaired KID from its units' sums of k over real and over generated partners."""
    n, p = int(in_real.sum()), int(in_made.sum())
    for count, what in ((n, "real"), (p, "generated")):
        if count < MIN_UNITS:
            few = f"fewer than {MIN_UNITS} {what} subjects" if count else f"no {what} image"
            return not_estimable(len(in_real), count, few)
    unit, none = np.arange(len(in_real)), np.zeros(len(in_real))
    own = u_statistic(to_real - (n - 1) / p * to_made, none, unit, in_real)
    made = u_statistic(to_made - (p - 1) / n * to_real, none, unit, in_made)
    both = replace(combine([own, made], [1.0, 1.0]), n=min(n, p), rooted=True)
    return unless_alike(both, in_real | in_made)


def shares(strata: Groups) -> dict[str, float]:
    """Share of all units at each level of the one condition that ``strata`` holds."""
    return {
        level: float(size / len(strata.members))
        for (_, level), size in zip(strata.keys[1:], strata.sizes()[1:], strict=True)
    }


def standardised_kid(
    kernel: Kernel,
    real: ArrayLike,
    generated: ArrayLike,
    groups: Groups,
    strata: Groups,
    weights: Mapping[str, float],
    *,
    generated_unit: Ints | None = None,
) -> list[Estimate]:
    """KID of every group as if all groups had the same shares of a condition's levels.

    sum over levels c, c' of w_c w_c' times the mean of h over pairs of different units, i in c and
    j in c': the squared distance between the reweighted laws, unbiased. The weights count as fixed;
    influence is centred within a level, so the variance is a stratified one.

    ``strata`` has the condition's levels alone; ``weights`` are their common shares (sum 1), as
    :func:`shares` of the pooled test set; 0 leaves a level out. Degrees of freedom are
    Satterthwaite's. NaN with the reason below ``MIN_STRATUM`` units in a level that counts.
    """
    condition, used = _strata(groups, strata, weights)
    own = _generated_unit(groups, generated_unit)
    x, y = _features(real, generated, len(groups.unit), len(own))
    names, common = list(used), np.array(list(used.values()))
    level = np.stack([strata.column(condition, name) for name in names], axis=1)  # [U, C]
    cells = groups.members[:, :, None] & level[:, None, :]  # [U, M, C]
    units = len(cells)
    cross = Groups(groups.unit, (), cells.reshape(units, -1))
    sums = pair_sums(kernel, x, y, cross, own)
    total = unit_means(sums.real, groups.unit, units) + unit_means(sums.generated, own, units)
    found = []
    for m, partners in enumerate(np.moveaxis(total.reshape(cells.shape), 1, 0)):
        cell = cells[:, m]
        thin = [
            f"{condition} {name} has {n} subjects, fewer than {MIN_STRATUM}"
            for name, n in zip(names, cell.sum(axis=0), strict=True)
            if n < MIN_STRATUM
        ]
        n = int(cell.sum())
        if thin or n < MIN_UNITS:
            reason = "; ".join(thin) or f"fewer than {MIN_UNITS} subjects"
            found.append(not_estimable(units, n, reason))
        else:
            found.append(_reweighted(partners, cell, common))
    return found


def _strata(
    groups: Groups, strata: Groups, weights: Mapping[str, float]
) -> tuple[str, dict[str, float]]:
    """Name of the condition and the weights that are not zero."""
    if not np.array_equal(groups.unit, strata.unit):
        raise InputError("standardised KID: strata and groups are not of the same images")
    known = tuple(level for _, level in strata.keys[1:])
    condition = strata.keys[1][0]
    for level in weights:
        refuse_unknown(f"level of {condition}", level, known)
    values = np.array(list(weights.values()), dtype=np.float64)
    if not (values >= 0).all() or not np.isclose(values.sum(), 1, rtol=0, atol=1e-9):
        raise InputError(f"weights of {condition}: {dict(weights)}; expected shares of sum 1")
    return condition, {level: weight for level, weight in weights.items() if weight > 0}


def _reweighted(partners: Floats, cell: Bools, common: Floats) -> Estimate:
    """A group's standardised KID from each unit's sums of h over partners by level, both [U, C]."""
    size = cell.sum(axis=0)
    others = size[None, :] - cell  # partners that a unit has in each level
    mean = (common * partners / others).sum(axis=1)  # [U]: h averaged over reweighted partners
    parts = []
    for c, n in enumerate(size):
        own = cell[:, c]
        value = float(mean[own].mean())
        scale = 2 * np.sqrt((n - 1) / n) / (n - 2)  # the jackknife's, as in u_statistic
        influence = np.where(own, scale * (mean - value), 0.0)
        parts.append(Estimate(value, influence, int(n), float(n - 1)))
    member = np.asarray(cell.any(axis=1))
    return unless_alike(replace(combine(parts, common.tolist()), rooted=True), member)


def real_floor(
    kernel: Kernel, real: Floats, unit: Ints, member: Bools, splits: int = 100, seed: int = 0
) -> Floats:
    """KID between two random halves of a group's reals, [splits]: what noise alone gives.

    Half the group on each side, so the spread is wider than that of a KID at the group's n. Shown
    beside the KID, never subtracted. Empty where the group has too few units.
    """
    chosen = member[unit]
    _, owner = np.unique(unit[chosen], return_inverse=True)
    n = int(owner.max()) + 1 if len(owner) else 0
    if n < 2 * MIN_UNITS:
        return np.empty(0)
    rng = np.random.default_rng(seed)
    half = (np.argsort(rng.random((splits, n)), axis=1) < n // 2).T.astype(np.float64)  # [n, S]
    basis = np.column_stack([half, np.ones(n)])
    sums = unit_means(
        partner_sums(kernel.bandwidth, real[chosen], owner, _share(owner), basis), owner, n
    )
    to_first, to_second = sums[:, :-1], sums[:, -1:] - sums[:, :-1]
    m, k = n // 2, n - n // 2
    first = (half * to_first).sum(axis=0) / (m * (m - 1))
    second = ((1 - half) * to_second).sum(axis=0) / (k * (k - 1))
    return np.asarray(first + second - 2 * (half * to_second).sum(axis=0) / (m * k))
