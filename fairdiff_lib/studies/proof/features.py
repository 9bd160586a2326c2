"""Layer F of the proof: groups whose truth is solved, and the cells made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from fairdiff_lib.audit.fid import fid_against_n
from fairdiff_lib.audit.kid import Kernel, fit_kernel
from fairdiff_lib.settings.options import ProofConfig
from fairdiff_lib.studies.proof.audits import Cell, Judge, NaiveTest, OurAudit, Scene, TwoGroups
from fairdiff_lib.studies.proof.laws import (
    Pair,
    group_pair,
    group_strata,
    mixture_kid,
    population_fid,
    population_kid,
    reals,
)
from fairdiff_lib.studies.proof.scenes import (
    ATTRIBUTES,
    CASE,
    CaseMix,
    Family,
    GaussianLaw,
    Means,
    Scores,
    SeveralImages,
)

TRAINING = 2000  # reals that the bandwidth is fixed on
FID_SIZES = (100, 200, 400, 800, 1600, 3200)  # images a side
FID_DRAWS = 5
VARIETY = {"small": "group of more varied images", "large": "group of less varied images"}
SHARE_ILL = (0.7, 0.2)  # of the small group, of the large one


@dataclass(frozen=True)
class Planted:
    """Groups whose truth is solved.

    Attributes
    ----------
    kernel : Kernel
        Fixed on reals of the large group, as a study's is on its training split.
    pairing : float
    """

    kernel: Kernel
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

    def laws(self, null: str, of_fid: bool = False) -> tuple[GaussianLaw, ...]:
        """One law for both groups, or two that differ in all but their truth."""
        names = ("large",) if null == "exchangeable" else ("small", "large")
        return tuple(self.law_of_fid(n) if of_fid else self.law(n) for n in names)


def feature_cells(config: ProofConfig) -> list[Cell]:
    """All cells of layer F."""
    design = Planted.of(config)
    cells: list[Cell] = []
    for null in ("exchangeable", "unequal"):
        for n in config.sizes:
            sizes = (n, config.reference)
            unequal = null == "unequal"
            scene = TwoGroups(design.laws(null), sizes)
            cells.append(_ours("kid", null, n, config, scene, design.kernel))
            if n in config.naive_sizes:
                cells += _naive(null, sizes, design)
            cells.append(_ours("auc", null, n, config, Scores(sizes, unequal)))
            for metric in ("accuracy", "denoising_loss"):
                cells.append(_ours(metric, null, n, config, Means(metric, sizes, unequal)))
        cells += _crossed(null, design) + _case_mix(null, design)
    return cells + power_cells(design)


def _ours(
    metric: str, null: str, n: int, config: ProofConfig, scene: Scene, kernel: Kernel | None = None
) -> Cell:
    count = config.simulations if metric == "kid" else config.other_simulations
    judge = OurAudit(kernel, family=metric.startswith("kid_family"))
    return Cell("audit", "F", metric, null, n, 1.0, count, 0.0, scene, judge)


def _crossed(null: str, design: Planted) -> list[Cell]:
    """Several images per subject, and families of contrasts."""
    config = design.config
    groups = ("large", "large", "large") if null == "exchangeable" else ATTRIBUTES["race"]
    laws = {level: design.law(g) for level, g in zip(ATTRIBUTES["race"], groups, strict=True)}
    small, middle = config.family_sizes
    sizes = {"small": small, "middle": middle, "large": config.reference}
    several = SeveralImages((laws["small"], laws["large"]), (small, config.reference), config.alike)
    race = {"race": ATTRIBUTES["race"]}
    fewest = min(config.sizes)
    return [
        _ours("kid_several_images", null, small, config, several, design.kernel),
        _ours("kid_family_race", null, small, config, Family(laws, sizes, race, fewest),
              design.kernel),
        _ours("kid_family_all", null, fewest, config, Family(laws, sizes, ATTRIBUTES, fewest),
              design.kernel),
    ]  # fmt: skip


def _case_mix(null: str, design: Planted) -> list[Cell]:
    """Groups of equal KID at common shares of the ill; the plain KID beside it."""
    config = design.config
    totals = (config.family_sizes[0], config.reference)
    ill = [round(share * n) for share, n in zip(SHARE_ILL, totals, strict=True)]
    sizes = tuple((n - k, k) for k, n in zip(ill, totals, strict=True))
    common = sum(ill) / sum(totals)
    groups = ("large", "large") if null == "exchangeable" else ("small", "large")
    strata = tuple(design.strata(g, (1 - common, common)) for g in groups)
    scene = CaseMix(strata, sizes)
    judges = (
        ("audit", OurAudit(design.kernel, strata=CASE)),
        ("kid_crude", OurAudit(design.kernel)),
    )
    return [
        Cell(name, "F", "kid_standardised", null, totals[0], 1.0, config.other_simulations, 0.0,
             scene, judge)
        for name, judge in judges
    ]  # fmt: skip


def _naive(null: str, sizes: tuple[int, int], design: Planted) -> list[Cell]:
    """The naive tests; those of the FID get groups of equal population *FID*."""
    config, kernel = design.config, design.kernel
    on_kid = TwoGroups(design.laws(null), sizes)
    on_fid = TwoGroups(design.laws(null, of_fid=True), sizes)
    tests: Sequence[tuple[str, Scene, Judge]] = [
        ("fid", on_fid, NaiveTest("fid_permutation", config.permutations)),
        ("fid", on_fid, NaiveTest("fid_equal_n_permutation", config.permutations)),
        ("fid", on_fid, NaiveTest("released_t_test", config.replicates)),
        ("kid", on_kid, NaiveTest("kid_raw_permutation", config.permutations, kernel)),
        ("kid", on_kid, NaiveTest("kid_equal_n_permutation", config.permutations, kernel)),
        ("kid", on_kid, NaiveTest("kid_bootstrap_self_pairs", config.bootstrap, kernel)),
    ]
    return [
        Cell(judge.name, "F", metric, null, sizes[0], 1.0, config.naive_simulations, 0.0,
             scene, judge)
        for metric, scene, judge in tests
        if isinstance(judge, NaiveTest)
    ]  # fmt: skip


def power_cells(design: Planted) -> list[Cell]:
    """A planted disparity, between groups that differ in everything else too."""
    config = design.config
    large = design.law("large")
    return [
        Cell(
            "audit", "F", "kid", "none", n, ratio, config.power_simulations,
            (ratio - 1) * config.kid,
            TwoGroups((design.law("small", ratio), large), (n, config.reference)),
            OurAudit(design.kernel),
        )
        for n in config.sizes
        for ratio in config.ratios
    ]  # fmt: skip


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
