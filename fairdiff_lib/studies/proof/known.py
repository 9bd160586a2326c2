"""Features and scores of known law, groups of solved truth: layer F of the proof.

For independent Gaussians X and Y with difference of means m and sum of covariances C, and
k(x, y) = exp(-|x - y|^2 / (2 b^2)),

    E k(X, Y) = det(I + C / b^2)^(-1/2) exp(-m' (b^2 I + C)^(-1) m / 2),

so that KID = E k(X, X') + E k(Y, Y') - 2 E k(X, Y) needs no simulation. How wrong a generator
is can then be *solved*, so that two groups with different images have equal truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
from scipy import optimize, stats

from fairdiff_lib.audit.audit import auc_metric, mean_metric
from fairdiff_lib.audit.estimate import Bools, Floats, Groups, Ints, Levels, group_units
from fairdiff_lib.audit.fid import fid_against_n
from fairdiff_lib.audit.kid import Kernel, fit_kernel
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import ProofConfig
from fairdiff_lib.studies.proof.audits import Pictures, Scene, TwoGroups, Values, two_groups

ATTRIBUTES: Levels = {  # of the family of contrasts, as in FairGenMed
    "race": ("small", "middle", "large"),
    "sex": ("Female", "Male"),
    "ethnicity": ("Non-Hispanic", "Hispanic"),
}
CASE: Levels = {"case": ("well", "ill")}
FEMALE = 0.57  # fraction of subjects
MOST_IMAGES = 3  # of one subject in the cells with several

AUC = 0.85
ACCURACY = 0.8
LOSS_SHAPE = {"large": 6.0, "small": 3.0}  # of a gamma law of denoising losses with mean 1


@dataclass(frozen=True)
class Gaussian:
    """Normal law of features."""

    mean: Floats  # float64 [D]
    root: Floats  # float64 [D, D]: covariance = root root'

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
    """Strength of the generator's error, 0 to ``most``, at which the growing distance is this."""
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
    """A group's reals with its own kind of error, as strong as ``target`` asks; 0: none."""
    wrong = ERRORS[name]
    if target == 0:
        return Pair(real, real)
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


# -- scenes -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class GaussianLaw:
    """A group's features; rows of one subject, real and generated, may resemble each other."""

    pair: Pair
    pairing: float  # correlation of an image with the one generated for its prompt

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
        """Features of ``n`` subjects with one image each."""
        return self.of_subjects(rng, np.arange(n), 0.0)

    def of_subjects(
        self, rng: np.random.Generator, unit: Ints, alike: float
    ) -> tuple[Floats, Floats]:
        """Features of rows [N] that belong to subjects; ``alike``: correlation within a subject."""
        x, y = (self._noise(rng, unit, alike) for _ in range(2))
        return self.pair.real.draw(x), self.made(x, y)

    def made(self, x: Floats, y: Floats) -> Floats:
        """Generated features, of the patients' noise and of their own (standard normal [N, D])."""
        return self.pair.generated.draw(self.pairing * x + np.sqrt(1 - self.pairing**2) * y)

    def _noise(self, rng: np.random.Generator, unit: Ints, alike: float) -> Floats:
        shape = (len(unit), len(self.pair.real.mean))
        own = rng.standard_normal(shape)
        if not alike:
            return own
        shared = rng.standard_normal((int(unit.max()) + 1, shape[1]))[unit]
        return np.asarray(np.sqrt(alike) * shared + np.sqrt(1 - alike) * own)


@dataclass(frozen=True)
class SeveralImages:
    """Two groups whose subjects have one to three images, as lesions have."""

    laws: tuple[GaussianLaw, ...]  # of the small and the large group; one: both
    sizes: tuple[int, int]  # subjects
    alike: float  # correlation of a subject's images

    def __call__(self, rng: np.random.Generator) -> Pictures:
        images = rng.integers(1, MOST_IMAGES + 1, size=sum(self.sizes))
        ends = np.cumsum([0, *self.sizes])
        drawn = []
        for law, start, end in zip((self.laws[0], self.laws[-1]), ends, ends[1:], strict=False):
            unit = np.repeat(np.arange(end - start), images[start:end])
            drawn.append(law.of_subjects(rng, unit, self.alike))
        real, generated = (np.concatenate(part) for part in zip(*drawn, strict=True))
        owner = np.repeat(np.arange(sum(self.sizes)), images)
        return Pictures(real, generated, replace(two_groups(self.sizes), unit=owner))


@dataclass(frozen=True)
class Family:
    """Several contrasts at once: three levels of race, and attributes that cut across them."""

    laws: tuple[GaussianLaw, ...]  # of the levels of race
    sizes: tuple[int, ...]
    attributes: Levels  # some of :data:`ATTRIBUTES`

    def __call__(self, rng: np.random.Generator) -> Pictures:
        drawn = [law.draw(rng, n) for law, n in zip(self.laws, self.sizes, strict=True)]
        real, generated = (np.concatenate(part) for part in zip(*drawn, strict=True))
        n = len(real)
        table = pd.DataFrame({"subject": np.arange(n)})
        table["race"] = np.repeat(ATTRIBUTES["race"], self.sizes)
        table["sex"] = np.where(rng.random(n) < FEMALE, "Female", "Male")
        hispanic = rng.permutation(n) < min(self.sizes)
        table["ethnicity"] = np.where(hispanic, "Hispanic", "Non-Hispanic")
        return Pictures(real, generated, group_units(table, self.attributes), self.attributes)


@dataclass(frozen=True)
class CaseMix:
    """Two groups with different shares of the ill."""

    # the well and the ill of the small group, and of the large one
    strata: tuple[tuple[GaussianLaw, GaussianLaw], ...]
    sizes: tuple[tuple[int, int], ...]  # subjects, in the same order

    def __call__(self, rng: np.random.Generator) -> Pictures:
        drawn = [
            law.draw(rng, n)
            for laws, counts in zip(self.strata, self.sizes, strict=True)
            for law, n in zip(laws, counts, strict=True)
        ]
        real, generated = (np.concatenate(part) for part in zip(*drawn, strict=True))
        ill = np.concatenate([np.repeat([False, True], counts) for counts in self.sizes])
        groups = two_groups((sum(self.sizes[0]), sum(self.sizes[1])))
        return Pictures(real, generated, groups, strata=_two_levels(groups.unit, "case", ill))


def _two_levels(unit: Ints, name: str, second: Bools) -> Groups:
    """Everybody, and a condition's two levels, of units with one row each."""
    keys = (("overall", "all"), *((name, level) for level in CASE[name]))
    return Groups(unit, keys, np.stack([np.ones_like(second), ~second, second], axis=1))


@dataclass(frozen=True)
class Copied:
    """Two groups, in which a share of the generated images are grainy copies of others."""

    scene: TwoGroups
    share: float  # of each group's images

    def __call__(self, rng: np.random.Generator) -> Pictures:
        seen = self.scene(rng)
        made = seen.generated.copy()
        for own in (np.flatnonzero(seen.small), np.flatnonzero(~seen.small)):
            copies = round(self.share * len(own))
            if copies:
                kept = own[copies:]
                made[own[:copies]] = made[kept[np.arange(copies) % len(kept)]]
        return replace(seen, generated=made + GRAIN * rng.standard_normal(made.shape))


GRAIN = 1e-3  # standard deviation: what JPEG leaves of a copy


@dataclass(frozen=True)
class Runs:
    """Two groups of the same patients in several complete runs, whose quality differs by chance."""

    laws: tuple[tuple[GaussianLaw, ...], ...]  # equally likely runs of each group
    sizes: tuple[int, int]
    count: int

    def __call__(self, rng: np.random.Generator) -> Pictures:
        parts = []
        for laws, n in zip((self.laws[0], self.laws[-1]), self.sizes, strict=True):
            real, _ = laws[0].draw(rng, n)
            made = [laws[rng.integers(len(laws))].draw(rng, n)[1] for _ in range(self.count)]
            parts.append((real, *made))
        real, *made = (np.concatenate(part) for part in zip(*parts, strict=True))
        return Pictures(real, made[0], two_groups(self.sizes), runs=tuple(made))


@dataclass(frozen=True)
class SamePatients:
    """Two groups in complete runs of one method, or of two that are given the same noise."""

    # of each method: of the small and the large group (a single one for both makes them
    # exchangeable): equally likely runs
    laws: tuple[tuple[tuple[GaussianLaw, ...], ...], ...]
    sizes: tuple[int, int]
    count: int

    def __call__(self, rng: np.random.Generator) -> Pictures:
        reals = [runs[0].pair.real for runs in self.laws[0]]
        counts = (sum(self.sizes),) if len(reals) == 1 else self.sizes
        shapes = [(n, len(real.mean)) for real, n in zip(reals, counts, strict=True)]
        x = [rng.standard_normal(shape) for shape in shapes]
        made: list[list[Floats]] = [[] for _ in self.laws]
        for _ in range(self.count):
            y = [rng.standard_normal(shape) for shape in shapes]
            for own, groups in zip(made, self.laws, strict=True):
                drawn = [runs[rng.integers(len(runs))] for runs in groups]
                parts = [law.made(a, b) for law, a, b in zip(drawn, x, y, strict=True)]
                own.append(np.concatenate(parts))
        seen = np.concatenate([real.draw(own) for real, own in zip(reals, x, strict=True)])
        first, second = made[0], made[1] if len(made) > 1 else []
        return Pictures(
            seen, first[0], two_groups(self.sizes), runs=tuple(first), rivals=tuple(second)
        )


# -- blur --------------------------------------------------------------------------------------

OFFSET = 1.0  # of the reals' centre from where features without any detail lie


def faded(features: Floats, sigma: float) -> Floats:
    """What a blur of ``sigma`` pixels leaves of features [N, D]: the finest detail goes first."""
    return np.asarray((features + OFFSET) * _left(features.shape[1], sigma) - OFFSET)


def _left(width: int, sigma: float) -> Floats:
    return np.exp(-(sigma**2) / 4 * np.linspace(0.05, 1.0, width))


def blurred(real: Gaussian, sigma: float) -> Gaussian:
    """Law of the blurred features."""
    left = _left(len(real.mean), sigma)
    return Gaussian((real.mean + OFFSET) * left - OFFSET, left[:, None] * real.root)


@dataclass(frozen=True)
class Blurring:
    """A scene whose reals can be blurred."""

    scene: Callable[[np.random.Generator], Pictures]

    def __call__(self, rng: np.random.Generator) -> Pictures:
        seen = self.scene(rng)
        return replace(seen, blurred=partial(faded, seen.real))


# -- metrics without images --------------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """Classifier scores of two groups; the laws differ if ``unequal``, by AUC if that is said.

    Binormal: AUC = Phi(shift / sqrt(1 + spread^2)) for negatives N(0, 1) and positives
    N(shift, spread^2).
    """

    sizes: tuple[int, int]
    unequal: bool
    aucs: tuple[float, float] = (AUC, AUC)

    def __call__(self, rng: np.random.Generator) -> Values:
        truths, scores = [], []
        for n, odd, auc in zip(self.sizes, (self.unequal, False), self.aucs, strict=True):
            prevalence, spread, bias = (0.3, 1.5, 0.5) if odd else (0.5, 1.0, 0.0)
            truth = rng.random(n) < prevalence
            shift = stats.norm.ppf(auc) * np.sqrt(1 + spread**2)
            score = rng.standard_normal(n) * np.where(truth, spread, 1.0) + truth * shift + bias
            truths.append(truth.astype(np.int64))
            scores.append(np.stack([-score, score], axis=1))
        estimator = auc_metric(np.concatenate(truths), np.concatenate(scores))
        return Values(estimator, "auc", "high", two_groups(self.sizes))


@dataclass(frozen=True)
class Means:
    """A value per subject with one mean in both groups: hits, or denoising losses."""

    metric: str
    sizes: tuple[int, int]
    unequal: bool

    def __call__(self, rng: np.random.Generator) -> Values:
        hits, parts = self.metric == "accuracy", []
        for n, odd in zip(self.sizes, (self.unequal, False), strict=True):
            shape = LOSS_SHAPE["small" if odd else "large"]
            drawn = rng.random(n) < ACCURACY if hits else rng.gamma(shape, 1 / shape, n)
            parts.append(drawn.astype(np.float64))
        estimator = mean_metric(np.concatenate(parts), bounded=hits)
        better = "high" if hits else "low"
        return Values(estimator, self.metric, better, two_groups(self.sizes))


# -- groups whose truth is solved --------------------------------------------------------------

TRAINING = 2000  # reals that the bandwidth is fixed on
FID_SIZES = (100, 200, 400, 800, 1600, 3200)  # images a side
FID_DRAWS = 5
VARIETY = {"small": "group of more varied images", "large": "group of less varied images"}
RUN_LAWS = 8  # equally likely qualities of a run


@dataclass(frozen=True)
class Planted:
    """Groups whose truth is solved."""

    kernel: Kernel  # fixed on reals of the large group, as a study's is on its training split
    pairing: float
    config: ProofConfig

    @classmethod
    def of(cls, config: ProofConfig) -> Planted:
        """The design of a proof."""
        noise = np.random.default_rng(config.seed).standard_normal((TRAINING, config.width))
        law = reals(config.width, config.seed)["large"]
        return cls(fit_kernel(law.draw(noise), config.seed), config.pairing, config)

    def law(self, group: str, ratio: float = 1.0) -> GaussianLaw:
        """Group with ``ratio`` times the planted KID."""
        distance = partial(population_kid, self.kernel)
        return self._solved(group, ratio * self.config.kid, distance)

    def law_of_fid(self, group: str) -> GaussianLaw:
        """Group with the FID that the large group has at the planted KID."""
        return self._solved(group, population_fid(self.law("large").pair), population_fid)

    def law_of_blur(self, group: str, itself: bool, pixels: float | None = None) -> GaussianLaw:
        """Group of this equivalent blur: blurred, or of its own error with that KID."""
        real = reals(self.config.width, self.config.seed)[group]
        soft = Pair(real, blurred(real, self.config.pixels if pixels is None else pixels))
        if itself:
            return GaussianLaw(soft, self.pairing)
        distance = partial(population_kid, self.kernel)
        return self._solved(group, distance(soft), distance)

    def laws_of_runs(self, group: str) -> tuple[GaussianLaw, ...]:
        """Runs whose KIDs scatter about the planted one, as a normal law's quantiles."""
        return tuple(self.law(group, 1 + self.config.run_spread * away) for away in run_scores())

    def _solved(self, group: str, target: float, distance: Callable[[Pair], float]) -> GaussianLaw:
        real = reals(self.config.width, self.config.seed)[group]
        return GaussianLaw(group_pair(group, real, target, distance), self.pairing)

    def strata(self, group: str, weights: tuple[float, float]) -> tuple[GaussianLaw, GaussianLaw]:
        """Well and ill of a group whose KID is the planted one at these shares of the two."""
        real = reals(self.config.width, self.config.seed)[group]
        found = group_strata(
            group, real, self.config.kid, lambda s: mixture_kid(self.kernel, s, weights)
        )
        return GaussianLaw(found[0], self.pairing), GaussianLaw(found[1], self.pairing)

    def laws(self, null: str, of_fid: bool = False, ratio: float = 1.0) -> tuple[GaussianLaw, ...]:
        """One law for both groups, or two that differ in all but their truth."""
        return tuple(
            self.law_of_fid(name) if of_fid else self.law(name, ratio) for name in names_of(null)
        )

    def case_mix(self, null: str, n: int, ill: tuple[float, float]) -> Scene:
        """Groups of equal KID at common shares of the ill, whose own shares differ."""
        totals = (n, self.config.reference)
        count = [round(share * total) for share, total in zip(ill, totals, strict=True)]
        sizes = tuple((total - k, k) for k, total in zip(count, totals, strict=True))
        common = sum(count) / sum(totals)
        laws = [self.strata(name, (1 - common, common)) for name in names_of(null)]
        return CaseMix((laws[0], laws[-1]), sizes)


def run_scores() -> list[float]:
    """Qualities of equally likely runs, of mean 0 and spread 1: quantiles of a normal law."""
    score = stats.norm.ppf((np.arange(RUN_LAWS) + 0.5) / RUN_LAWS)
    return [float(away) for away in score / score.std()]


def names_of(null: str) -> tuple[str, ...]:
    """Groups whose laws a null needs."""
    return ("large",) if null == "exchangeable" else ("small", "large")


def fid_bias(
    config: ProofConfig, sizes: Sequence[int] = FID_SIZES, draws: int = FID_DRAWS
) -> tuple[pd.DataFrame, float]:
    """Plain FID against n of the two groups of equal population FID, and that population FID.

    Real and generated images are drawn independently of each other, anew for each draw.

    Parameters
    ----------
    config : ProofConfig
    sizes : sequence of int
        Numbers of images a side.
    draws : int

    Returns
    -------
    rows : DataFrame
        level (which group), n, draw, value.
    limit : float
        The FID of both groups at n without end, in closed form.
    """
    design, rng = Planted.of(replace(config, pairing=0.0)), np.random.default_rng(config.seed)
    laws = {level: design.law_of_fid(group) for group, level in VARIETY.items()}
    parts = [
        fid_against_n(*law.draw(rng, max(sizes)), sizes).assign(level=level, draw=draw)
        for level, law in laws.items()
        for draw in range(draws)
    ]
    rows = pd.concat(parts, ignore_index=True)[["level", "n", "draw", "value"]]
    return rows, population_fid(design.law_of_fid("large").pair)
