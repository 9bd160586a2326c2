"""Sums of a Gaussian kernel over other units: the one costly step of every KID.

One pass over the upper half of the kernel matrix, in square blocks, serves any number of
sums. Where there are many images, the inner products are float32 and everything after them
(norms, exponential, sums) is float64: the rounding of an inner product is random, and a KID
averages over all pairs. ``exact=True`` is the float64 path to compare with.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fairdiff_lib.audit.estimate import Bools, Floats, Ints

CHUNK = 256  # rows and columns of a kernel block: one that stays in the processor's cache
SINGLE_ABOVE = 4096  # images, real and generated, from which float32 products are worth it
SINGLE_REACH = 10.0  # bandwidths from the centre, up to which float32 products are safe


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

    Parameters
    ----------
    bandwidth : float
        Of the Gaussian kernel k, in units of the features.
    rows : float64 [R, D]
        Real and generated images alike.
    unit : int64 [R]
    share : float64 [R]
        An image's weight in its unit, with the sign that it has in h.
    basis : [U, C]
        A column per sum that is wanted, as the members of a group.
    exact : bool, optional
        True: float64 products; False: float32 ones, unless an image lies more than
        ``SINGLE_REACH`` bandwidths from the centre; by number of images without it.

    Returns
    -------
    float64 [R, C]
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
        values = np.exp(-0.5 * np.sum((rows[a] - rows[b]) ** 2, axis=1) / bandwidth**2)
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
