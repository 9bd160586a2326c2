"""Laws of features whose population KID and FID are known in closed form.

For independent Gaussians X and Y with difference of means m and sum of covariances C, and
k(x, y) = exp(-|x - y|^2 / (2 b^2)),

    E k(X, Y) = det(I + C / b^2)^(-1/2) exp(-m' (b^2 I + C)^(-1) m / 2),

so that KID = E k(X, X') + E k(Y, Y') - 2 E k(X, Y) needs no simulation. How wrong a generator
is can then be *solved*, so that two groups with different images have equal truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from fairdiff_lib.audit.estimate import Floats
from fairdiff_lib.audit.kid import Kernel
from fairdiff_lib.settings.errors import InputError


@dataclass(frozen=True)
class Gaussian:
    """Normal law of features.

    Attributes
    ----------
    mean : float64 [D]
    root : float64 [D, D]
        Covariance = root root'.
    """

    mean: Floats
    root: Floats

    def draw(self, noise: Floats) -> Floats:  # standard normal [N, D] => [N, D]
        """Features from standard normal noise, which says what rows share."""
        return np.asarray(self.mean + noise @ self.root.T)

    def shifted(self, by: Floats) -> Gaussian:
        """Every feature vector moved by ``by`` [D]."""
        return Gaussian(self.mean + by, self.root)

    def scaled(self, by: float) -> Gaussian:
        """Spread times ``by``, around the same mean."""
        return Gaussian(self.mean, self.root * by)


@dataclass(frozen=True)
class Pair:
    """Real and generated features of one group."""

    real: Gaussian
    generated: Gaussian


def mean_kernel(kernel: Kernel, first: Gaussian, second: Gaussian) -> float:
    """E k(X, Y) for independent X and Y."""
    square = kernel.bandwidth**2
    wide = first.root @ first.root.T + second.root @ second.root.T
    wide[np.diag_indices(len(wide))] += square
    gap = first.mean - second.mean
    _, size = np.linalg.slogdet(wide / square)
    return float(np.exp(-0.5 * (size + gap @ np.linalg.solve(wide, gap))))


def population_kid(kernel: Kernel, pair: Pair) -> float:
    """Squared maximum mean discrepancy of the two laws."""
    return mixture_kid(kernel, (pair,), (1.0,))


def mixture_kid(kernel: Kernel, strata: Sequence[Pair], weights: Sequence[float]) -> float:
    """KID of a group whose images come from several strata with these shares."""
    total = 0.0
    for own, share in zip(strata, weights, strict=True):
        for other, weight in zip(strata, weights, strict=True):
            same = mean_kernel(kernel, own.real, other.real)
            same += mean_kernel(kernel, own.generated, other.generated)
            crossed = mean_kernel(kernel, own.real, other.generated)
            crossed += mean_kernel(kernel, other.real, own.generated)
            total += share * weight * (same - crossed)
    return total


def population_fid(pair: Pair) -> float:
    """Frechet distance of the two laws.

    With covariances A A' and B B', tr((A A' B B')^(1/2)) is the nuclear norm of A' B.
    """
    a, b = pair.real.root, pair.generated.root
    cross = np.linalg.svd(a.T @ b, compute_uv=False).sum()
    shift = np.sum((pair.real.mean - pair.generated.mean) ** 2)
    return float(shift + np.sum(a**2) + np.sum(b**2) - 2 * cross)


def solve(distance: Callable[[float], float], target: float, most: float) -> float:
    """Strength of the generator's error at which the distance is ``target``.

    Parameters
    ----------
    distance : callable
        Of the strength, from 0 (no error) to ``most``; grows.
    target : float
    most : float
        The largest strength that is tried.

    Raises
    ------
    InputError
        The largest error is too small for the target.
    """
    reach = distance(most)
    if not 0 < target < reach:
        raise InputError(f"planted distance {target:g}: expected above 0 and below {reach:.3g}")
    return float(optimize.brentq(lambda s: distance(s) - target, 0.0, most, xtol=1e-12))


# -- the study's own design --------------------------------------------------------------------


def spectrum(width: int, decay: float) -> Floats:  # [D]
    """Standard deviations whose variances fall as rank^-decay and have mean 1."""
    variance = np.arange(1, width + 1, dtype=np.float64) ** -decay
    return np.asarray(np.sqrt(variance * width / variance.sum()))


def rotation(width: int, seed: int) -> Floats:  # [D, D]
    """A random orthogonal matrix."""
    square = np.random.default_rng(seed).standard_normal((width, width))
    return np.asarray(np.linalg.qr(square)[0])


def reals(width: int, seed: int) -> dict[str, Gaussian]:
    """Real features of three groups that differ in mean, covariance and spread.

    Features are in units of their spread over training images, as in the study: variance 1
    on average, most of it in few directions.
    """
    turned = [rotation(width, seed + k) for k in range(2)]
    aside = [turn[:, -1] for turn in turned]
    zero = np.zeros(width)
    return {
        "large": Gaussian(zero, np.diag(spectrum(width, 1.0))),
        "small": Gaussian(2.0 * aside[0], 1.25 * turned[0] * spectrum(width, 0.5)),
        "middle": Gaussian(1.0 * aside[1], 0.85 * turned[1] * spectrum(width, 0.8)),
    }


ERRORS: dict[str, Callable[[Gaussian, float], Gaussian]] = {
    # lost spread: each image lies nearer to its group's mean
    "large": lambda real, s: real.scaled(1 - s),
    # all images are wrong in the same way
    "small": lambda real, s: real.shifted(np.full(len(real.mean), 20 * s / len(real.mean) ** 0.5)),
    # too much spread
    "middle": lambda real, s: real.scaled(1 + 3 * s),
}


MOST = 0.999  # strength of an error
ILL = 1.5  # x the strength of the error, in the stratum of the ill


def group_pair(name: str, real: Gaussian, target: float, distance: Callable[[Pair], float]) -> Pair:
    """A group's reals with its own kind of error, as strong as ``target`` asks."""
    wrong = ERRORS[name]
    strength = solve(lambda s: distance(Pair(real, wrong(real, s))), target, MOST)
    return Pair(real, wrong(real, strength))


def group_strata(
    name: str, real: Gaussian, target: float, distance: Callable[[Sequence[Pair]], float]
) -> tuple[Pair, Pair]:
    """The same for two strata, the well and the ill; the ill look different and fare worse."""
    wrong, width = ERRORS[name], len(real.mean)
    ill = real.shifted(3.0 * rotation(width, 0)[:, 0])

    def pairs(s: float) -> tuple[Pair, Pair]:
        return Pair(real, wrong(real, s)), Pair(ill, wrong(ill, ILL * s))

    return pairs(solve(lambda s: distance(pairs(s)), target, MOST / ILL))
