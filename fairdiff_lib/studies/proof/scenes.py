"""What layer F of the proof draws: features and scores of known law."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from fairdiff_lib.audit.audit import auc_metric, mean_metric
from fairdiff_lib.audit.estimate import Floats, Ints, Levels
from fairdiff_lib.studies.proof.audits import PAIRWISE, Pictures, Values, two_groups
from fairdiff_lib.studies.proof.laws import Pair

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
class GaussianLaw:
    """A group's features; rows of one subject, real and generated, may resemble each other.

    Attributes
    ----------
    pair : Pair
    pairing : float
        Correlation of an image with the one generated for its prompt.
    """

    pair: Pair
    pairing: float

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
        """Features of ``n`` subjects with one image each."""
        return self.of_subjects(rng, np.arange(n), 0.0)

    def of_subjects(
        self, rng: np.random.Generator, unit: Ints, alike: float
    ) -> tuple[Floats, Floats]:
        """Features of rows [N] that belong to subjects; ``alike``: correlation within a subject."""
        x, y = (self._noise(rng, unit, alike) for _ in range(2))
        y = self.pairing * x + np.sqrt(1 - self.pairing**2) * y
        return self.pair.real.draw(x), self.pair.generated.draw(y)

    def _noise(self, rng: np.random.Generator, unit: Ints, alike: float) -> Floats:
        shape = (len(unit), len(self.pair.real.mean))
        own = rng.standard_normal(shape)
        if not alike:
            return own
        shared = rng.standard_normal((int(unit.max()) + 1, shape[1]))[unit]
        return np.asarray(np.sqrt(alike) * shared + np.sqrt(1 - alike) * own)


@dataclass(frozen=True)
class SeveralImages:
    """Two groups whose subjects have one to three images, as lesions have.

    Attributes
    ----------
    laws : tuple of GaussianLaw
        Of the small and the large group.
    sizes : tuple of int
        Subjects.
    alike : float
        Correlation of a subject's images.
    """

    laws: tuple[GaussianLaw, GaussianLaw]
    sizes: tuple[int, int]
    alike: float

    def __call__(self, rng: np.random.Generator) -> Pictures:
        images = rng.integers(1, MOST_IMAGES + 1, size=sum(self.sizes))
        ends = np.cumsum([0, *self.sizes])
        drawn = []
        for law, start, end in zip(self.laws, ends, ends[1:], strict=False):
            unit = np.repeat(np.arange(end - start), images[start:end])
            drawn.append(law.of_subjects(rng, unit, self.alike))
        real, generated = (np.concatenate(part) for part in zip(*drawn, strict=True))
        table = two_groups(self.sizes).loc[np.repeat(np.arange(sum(self.sizes)), images)]
        return Pictures(real, generated, table.reset_index(drop=True), PAIRWISE)


@dataclass(frozen=True)
class Family:
    """Several contrasts at once: three levels of race, and attributes that cut across them.

    Attributes
    ----------
    laws, sizes : dict of level of race
    attributes : mapping
        Some of :data:`ATTRIBUTES`.
    hispanic : int
        Subjects; the others are not.
    """

    laws: dict[str, GaussianLaw]
    sizes: dict[str, int]
    attributes: Levels
    hispanic: int

    def __call__(self, rng: np.random.Generator) -> Pictures:
        drawn = [self.laws[level].draw(rng, n) for level, n in self.sizes.items()]
        real, generated = (np.concatenate(part) for part in zip(*drawn, strict=True))
        n = len(real)
        table = pd.DataFrame(
            {
                "subject": np.arange(n),
                "race": np.repeat(list(self.sizes), list(self.sizes.values())),
                "sex": np.where(rng.random(n) < FEMALE, "Female", "Male"),
                "ethnicity": np.where(
                    rng.permutation(n) < self.hispanic, "Hispanic", "Non-Hispanic"
                ),
            }
        )
        return Pictures(real, generated, table, self.attributes)


@dataclass(frozen=True)
class CaseMix:
    """Two groups with different shares of the ill.

    Attributes
    ----------
    strata : tuple of pairs of GaussianLaw
        The well and the ill of the small group, and of the large one.
    sizes : tuple of pairs of int
        Subjects, in the same order.
    """

    strata: tuple[tuple[GaussianLaw, GaussianLaw], ...]
    sizes: tuple[tuple[int, int], ...]

    def __call__(self, rng: np.random.Generator) -> Pictures:
        drawn = [
            law.draw(rng, n)
            for laws, counts in zip(self.strata, self.sizes, strict=True)
            for law, n in zip(laws, counts, strict=True)
        ]
        real, generated = (np.concatenate(part) for part in zip(*drawn, strict=True))
        case = [np.repeat(CASE["case"], counts) for counts in self.sizes]
        table = two_groups((sum(self.sizes[0]), sum(self.sizes[1])))
        return Pictures(real, generated, table.assign(case=np.concatenate(case)), PAIRWISE)


# -- metrics without images --------------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """Classifier scores of two groups with one AUC; the laws differ if ``unequal``.

    Binormal: AUC = Phi(shift / sqrt(1 + spread^2)) for negatives N(0, 1) and positives
    N(shift, spread^2).
    """

    sizes: tuple[int, int]
    unequal: bool

    def __call__(self, rng: np.random.Generator) -> Values:
        truths, scores = [], []
        for n, odd in zip(self.sizes, (self.unequal, False), strict=True):
            prevalence, spread, bias = (0.3, 1.5, 0.5) if odd else (0.5, 1.0, 0.0)
            truth = rng.random(n) < prevalence
            shift = stats.norm.ppf(AUC) * np.sqrt(1 + spread**2)
            score = rng.standard_normal(n) * np.where(truth, spread, 1.0) + truth * shift + bias
            truths.append(truth.astype(np.int64))
            scores.append(np.stack([-score, score], axis=1))
        estimator = auc_metric(np.concatenate(truths), np.concatenate(scores))
        return Values(estimator, "auc", "high", two_groups(self.sizes), PAIRWISE)


@dataclass(frozen=True)
class Means:
    """A value per subject with one mean in both groups: hits, or denoising losses."""

    metric: str
    sizes: tuple[int, int]
    unequal: bool

    def __call__(self, rng: np.random.Generator) -> Values:
        hits = self.metric == "accuracy"
        parts = []
        for name, n in zip(
            ("small" if self.unequal else "large", "large"), self.sizes, strict=True
        ):
            shape = LOSS_SHAPE[name]
            drawn = rng.random(n) < ACCURACY if hits else rng.gamma(shape, 1 / shape, n)
            parts.append(drawn.astype(np.float64))
        estimator = mean_metric(np.concatenate(parts), bounded=hits)
        better = "high" if hits else "low"
        return Values(estimator, self.metric, better, two_groups(self.sizes), PAIRWISE)
