"""Equivalent blur: how far must a group's own real images be blurred to be as far off as generated?

KID by group rests on how varied the group's *real* images are: one and the same degradation of
everybody's images gives another KID in every group. The equivalent blur has the same unit in all of
them: the standard deviation, in pixels, of the Gaussian blur of the group's own reals whose KID
against these reals is the generator's. Both KIDs are means over pairs of different subjects, so a
blurred image is never compared with its own original, and what the two share (the reals) cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, special, stats
from scipy.interpolate import PchipInterpolator

from fairdiff_lib.audit.audit import Estimator, audit, kid_metric
from fairdiff_lib.audit.contrasts import CONTRAST_COLUMNS, DESCRIPTION, GROUP_COLUMNS
from fairdiff_lib.audit.estimate import (
    MIN_UNITS,
    Estimate,
    Floats,
    Groups,
    Levels,
    not_estimable,
)
from fairdiff_lib.audit.estimators import u_statistic, unless_alike
from fairdiff_lib.audit.kid import Kernel, as_features, kid, partner_sums, unit_means
from fairdiff_lib.settings.errors import InputError

SMALLEST_BLUR = 0.1  # pixels: a smaller difference between groups is of no interest
SIGMAS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)  # pixels, at the study's size
STEPS = 2000  # between 0 and the widest blur, at which a curve is read
KERNEL_MEANS = ("kernel_real_real", "kernel_made_made", "kernel_real_made")


def blur_images(images: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    """Images [N, 3, H, W] after a Gaussian blur of ``sigma`` pixels."""
    done = ndimage.gaussian_filter(images.astype(np.float32), (0, 0, sigma, sigma), mode="nearest")
    return np.asarray(np.rint(done), dtype=np.uint8)


@dataclass(frozen=True)
class Curves:
    """KID of blurred reals against the reals of other subjects.

    Attributes
    ----------
    sigmas : float64 [S]
        Pixels, rising from 0.
    known : list of list of Estimate
        By sigma, then by group, in the order of ``groups.keys``.
    groups : Groups
    """

    sigmas: Floats
    known: list[list[Estimate]]
    groups: Groups

    def at(self, sigma: float) -> list[Estimate]:
        """KID of every group's reals blurred by ``sigma``, read as equivalent blurs are."""
        found, width = [], np.array([sigma])
        for each in zip(*self.known, strict=True):
            if not all(np.isfinite(e.value) for e in each):
                found.append(next(e for e in each if not np.isfinite(e.value)))
                continue
            heights = np.maximum.accumulate([e.value for e in each])
            height = PchipInterpolator(self.sigmas, heights)(width)
            place, share = _between(self.sigmas, heights, width, height)
            first, second = each[place[0]], each[place[0] + 1]
            influence = (1 - share[0]) * first.influence + share[0] * second.influence
            found.append(replace(second, value=float(height[0]), influence=influence))
        return found

    def rise(self, sigma: float, step: float = SMALLEST_BLUR) -> float:
        """How much ``step`` pixels more add to the KID of all reals blurred by ``sigma``.

        The smallest difference in KID that matters where images are as far off as that blur makes
        real ones. NaN where no blur of the curve is as wide: of a collapsed generator nothing is
        "equal".
        """
        if not 0 <= sigma <= self.sigmas[-1] - step:
            return float("nan")
        less, more = (self.at(width)[0].value for width in (sigma, sigma + step))
        return more - less


def blur_curves(
    kernel: Kernel,
    real: ArrayLike,
    at: Callable[[float], ArrayLike],
    groups: Groups,
    sigmas: Sequence[float] = SIGMAS,
    beyond: Sequence[Estimate] = (),
) -> Curves:
    """KID of every group's reals after blurs of rising width; made once for all generators.

    Or for one alone, whose KIDs by group are ``beyond``: then no further than takes to be clearly
    above them.

    Parameters
    ----------
    real : [N, D]
        Features of the sharp reals.
    at : callable
        Width in pixels to the features [N, D] of the same images, blurred.

    Raises
    ------
    InputError
        Widths that don't rise from 0.
    """
    widths = np.asarray(sigmas, dtype=np.float64)
    if len(widths) < 3 or widths[0] != 0 or not (np.diff(widths) > 0).all():
        raise InputError(f"widths of blur {list(sigmas)}: expected three or more, rising from 0")
    wanted = [e.interval(0.99)[1] for e in beyond]
    known: list[list[Estimate]] = []
    for s in widths:
        known.append(kid(kernel, real, at(float(s)), groups) if s > 0 else _sharp(groups))
        pairs = zip(known[-1], wanted, strict=False)
        if wanted and len(known) > 2 and not any(own.value <= most for own, most in pairs):
            break
    return Curves(widths[: len(known)], known, groups)


def _sharp(groups: Groups) -> list[Estimate]:
    """KID of the sharp reals against themselves: exactly 0, whoever they are."""
    units = len(groups.members)
    return [
        Estimate(0.0, np.zeros(units), n, n - 1.0, rooted=True)
        if n >= MIN_UNITS
        else not_estimable(units, n, f"fewer than {MIN_UNITS} subjects")
        for n in groups.sizes().tolist()
    ]


def blur_metric(kernel: Kernel, real: ArrayLike, generated: ArrayLike, curves: Curves) -> Estimator:
    """Equivalent blur of features [N, D], for :func:`audit.audit`; curves of the same groups."""

    def metric(groups: Groups) -> list[Estimate]:
        if groups.keys != curves.groups.keys:
            raise InputError("equivalent blur: the curves are of other groups")
        return equivalent_blur(kid(kernel, real, generated, groups), curves)

    return metric


def equivalent_blur(generator: Sequence[Estimate], curves: Curves) -> list[Estimate]:
    """Equivalent blur of every group, from the generator's KIDs on the same units.

    The estimate solves KID_blur(sigma) = KID_generator. Its interval holds the sigmas at which the
    paired difference of the two is not told from 0; its upper end is infinite where that is so of
    the widest blur, and takes a KID below 0 for 0. Influence values are that difference's over the
    curve's rise. Differences of groups are made from their intervals. Where the generated images
    have units of their own (``kid.kid_unpaired``), these stand behind those of the curves.
    """
    more = len(generator[0].influence) - len(curves.known[0][0].influence)
    known = [
        [replace(e, influence=np.pad(np.nan_to_num(e.influence), (0, more))) for e in row]
        for row in curves.known
    ]
    return [_one(own, [row[m] for row in known], curves.sigmas) for m, own in enumerate(generator)]


@dataclass(frozen=True)
class _Gap:
    """Generator's KID minus that of blurred reals, and its variance, along the widths."""

    sigma: Floats  # [STEPS + 1]
    value: Floats
    error: Floats
    df: float
    below: float  # how far the generator's KID lies below 0, by chance: none is truly that good

    def crossing(self, above: Floats) -> float:
        """Width at which a falling line reaches 0: 0 where it starts below, inf without an end."""
        if above[0] <= 0:
            return 0.0
        if above[-1] > 0:
            return float("inf")
        k = int(np.argmax(above <= 0))
        share = above[k - 1] / (above[k - 1] - above[k])
        return float(self.sigma[k - 1] + share * (self.sigma[k] - self.sigma[k - 1]))

    def limits(self, confidence: float) -> tuple[float, float]:
        """Widths not told from the generator."""
        reach = -float(special.stdtrit(self.df, (1 - confidence) / 2)) * self.error
        return self.crossing(self.value - reach), self.crossing(self.value + self.below + reach)

    def spread(self, value: float) -> float:
        """Standard error of a width: half of its 68% interval, its longer arm where 0 is within.

        The curve's slope would say ten times as much where it is flat: near sharp images.
        """
        low, high = self.limits(float(2 * stats.t.cdf(1, self.df) - 1))
        arms = value - low, min(high, float(self.sigma[-1])) - value
        return sum(arms) / 2 if low > 0 and np.isfinite(high) else max(arms)


def _one(own: Estimate, curve: Sequence[Estimate], sigmas: Floats) -> Estimate:
    units = len(own.influence)
    if not np.isfinite(own.value) or not all(np.isfinite(e.value) for e in curve):
        note = own.note.removeprefix("not estimable: ") or "no KID of blurred reals"
        return not_estimable(units, own.n, note)
    if not own.standard_error > 0:
        return not_estimable(units, own.n, own.note.removeprefix("no interval: "))
    heights = np.maximum.accumulate([e.value for e in curve])
    read = PchipInterpolator(sigmas, heights)
    fine = np.linspace(0, sigmas[-1], STEPS + 1)
    place, share = _between(sigmas, heights, fine, read(fine))
    known, pull = np.stack([e.influence for e in curve]), np.maximum(read(fine), own.standard_error)
    parts = np.vstack([own.influence, known])
    products = parts @ parts.T  # of the generator's influence, then of each width's
    weights = np.zeros((len(fine), len(parts)))
    each = np.arange(len(fine))
    weights[:, 0] = 0.5 / np.sqrt(max(own.value, own.standard_error))
    weights[each, place + 1] = -(1 - share) * 0.5 / np.sqrt(pull)
    weights[each, place + 2] = -share * 0.5 / np.sqrt(pull)
    square = np.einsum("sk,kl,sl->s", weights, products, weights)
    roots = _root(np.append(read(fine), own.value), own.standard_error)
    below = float(max(_root(np.zeros(1), own.standard_error)[0] - roots[-1], 0.0))
    gap = _Gap(fine, roots[-1] - roots[:-1], np.sqrt(np.maximum(square, 0)), own.df, below)
    value = gap.crossing(gap.value)
    if not np.isfinite(value):
        least = min(gap.limits(0.95)[0], float(sigmas[-1]))
        reason = f"further off than a blur of {sigmas[-1]:g} pixels (95% sure: {least:.2g} or more)"
        return not_estimable(units, own.n, reason)
    k, w = _between(sigmas, heights, np.array([value]), np.array([own.value]))
    rows = own.influence - (1 - w[0]) * known[k[0]] - w[0] * known[k[0] + 1]
    influence = rows * (gap.spread(value) / max(float(np.sqrt(np.sum(rows**2))), 1e-12))
    note = "no further off than sharp reals" if value == 0 else ""
    return Estimate(value, influence, own.n, own.df, note, limits=gap.limits, from_limits=True)


def _root(kid: Floats, error: float) -> Floats:
    """Root of a KID; below its ``error``, where noise has no root, the tangent there."""
    return np.where(kid >= error, np.sqrt(np.maximum(kid, error)), (kid + error) / 2 / error**0.5)


def _between(
    sigmas: Floats, heights: Floats, fine: Floats, read: Floats
) -> tuple[NDArray[np.int64], Floats]:
    """Segment of each width, and how far up its two heights the curve has got."""
    place = np.clip(np.searchsorted(sigmas, fine, side="right") - 1, 0, len(sigmas) - 2)
    rise = heights[place + 1] - heights[place]
    share = np.divide(read - heights[place], rise, out=np.zeros(len(fine)), where=rise > 0)
    return place.astype(np.int64), np.clip(share, 0, 1)


# -- what the reals do by themselves ---------------------------------------------------------


def same_corruption(
    kernel: Kernel,
    real: ArrayLike,
    corrupted: Mapping[str, ArrayLike],
    groups: Groups,
    attributes: Levels,
    **design: Any,
) -> pd.DataFrame:
    """The KID contrasts that one and the same corruption of everybody's reals gives.

    To stand beside a generator's contrasts: as far as these go, a contrast of KID says nothing of
    the generator.

    Parameters
    ----------
    corrupted : mapping
        Name, as "noise of sd 5", to the features [N, D] of the corrupted reals.
    design
        As for :func:`audit.audit`: confidence, secondary_below, ...

    Returns
    -------
    DataFrame
        corruption, kid (over all units), then ``contrasts.CONTRAST_COLUMNS``.
    """
    parts = []
    for name, features in corrupted.items():
        one = audit(kid_metric(kernel, real, features), groups, attributes, metric="kid",
                    role=DESCRIPTION, **design)  # fmt: skip
        parts.append(one.contrasts.assign(corruption=name, kid=one.overall.value))
    return pd.concat(parts, ignore_index=True)[["corruption", "kid", *CONTRAST_COLUMNS]]


def kernel_means(
    kernel: Kernel, real: ArrayLike, generated: ArrayLike, groups: Groups
) -> dict[str, list[Estimate]]:
    """Means of k(x, x'), k(y, y') and k(x, y') over pairs of different units, by group.

    KID is the first plus the second less twice the third: which of them makes a contrast? A large
    first one means reals that are much alike. Row by row, as in :func:`kid.kid`.
    """
    x = as_features(real, "real features", len(groups.unit))
    y = as_features(generated, "generated features", len(groups.unit))
    rows, unit = np.concatenate([x, y]), np.concatenate([groups.unit, groups.unit])
    units, n = len(groups.members), len(x)
    weight, none = 1 / np.bincount(groups.unit)[groups.unit], np.zeros(n)
    to_real, to_made = (
        partner_sums(kernel.bandwidth, rows, unit, share, groups.members)
        for share in (np.concatenate([weight, none]), np.concatenate([none, weight]))
    )
    parts = [unit_means(own, groups.unit, units) for own in
             (to_real[:n], to_made[n:], to_made[:n] / 2, to_real[n:] / 2)]  # fmt: skip
    each = np.arange(units)

    def means(first: Floats, second: Floats | None = None) -> list[Estimate]:
        other = np.zeros_like(first) if second is None else second
        return [
            unless_alike(u_statistic(first[:, m], other[:, m], each, member), member)
            for m, member in enumerate(groups.members.T)
        ]

    return dict(
        zip(
            KERNEL_MEANS, (means(parts[0]), means(parts[1]), means(parts[2], parts[3])), strict=True
        )
    )


def estimate_rows(
    means: Mapping[str, Sequence[Estimate]], groups: Groups, confidence: float = 0.95
) -> pd.DataFrame:
    """Estimates by metric and group, as :func:`kernel_means`, in ``contrasts.GROUP_COLUMNS``."""
    rows = [
        (*key, name, one.n, one.value, *one.interval(confidence), one.note)
        for name, estimates in means.items()
        for key, one in zip(groups.keys, estimates, strict=True)
    ]
    return pd.DataFrame(rows, columns=list(GROUP_COLUMNS))
