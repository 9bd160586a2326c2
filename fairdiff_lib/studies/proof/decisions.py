"""Verdicts in equivalent blur, end to end: a set of the proof that runs by itself.

What decides a study is here whole: blur curves, the planned test over complete runs
(``verdict.effects``), the rule (``audit.decide``), at differences of nothing, just X, and twice X.
"Larger" and "no larger" may each be wrong in 5% at just X, "no larger" at twice X, "a difference"
at nothing. Every verdict supposes that the positive control was found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fairdiff_lib.audit.blur import SMALLEST_BLUR, blur_curves, blur_metric
from fairdiff_lib.audit.decide import LARGER, NO_LARGER, Effect, outcome
from fairdiff_lib.audit.estimate import OVERALL
from fairdiff_lib.audit.kid import Kernel
from fairdiff_lib.audit.seeds import LEAST_RUNS
from fairdiff_lib.settings.options import ProofConfig
from fairdiff_lib.studies.proof import BOTH_TAILS, BOTH_TAILS_OF_TRUTH, Row, Says
from fairdiff_lib.studies.proof.audits import (
    LEVEL,
    OURS,
    Cell,
    Finding,
    Pictures,
    Scene,
    Seen,
)
from fairdiff_lib.studies.proof.known import (
    Blurring,
    GaussianLaw,
    Planted,
    SamePatients,
    names_of,
    run_scores,
)
from fairdiff_lib.studies.verdict.effects import EFFECT, effect_rows
from fairdiff_lib.studies.verdict.protocol import (
    BLUR,
    DISPARITY,
    EQUITY,
    QUALITY,
    Planned,
    Protocol,
)

RUN_SPREAD = 0.02  # px between runs, of each group and method: about twice what real patients show
MAY = {  # true size, x X: how often which error may occur
    0: BOTH_TAILS | {"seen": LEVEL},
    1: BOTH_TAILS_OF_TRUTH | {LARGER: LEVEL, NO_LARGER: LEVEL},
    2: BOTH_TAILS_OF_TRUTH | {NO_LARGER: LEVEL},
}


@dataclass(frozen=True)
class Decision:
    """The verdict on one planned test in equivalent blur, by the functions that a study calls."""

    kernel: Kernel
    test: Planned

    def __call__(self, seen: Seen, rng: np.random.Generator) -> Finding:
        return self.told(self.effect(seen))

    def effect(self, seen: Seen) -> Effect:
        """What is measured of the test: over runs, where there are several."""
        assert isinstance(seen, Pictures) and seen.blurred is not None
        curves = blur_curves(self.kernel, seen.real, seen.blurred, seen.groups)
        rule = self.rule
        values = {}
        for method, made in ((rule.baseline, seen.runs), (rule.method, seen.rivals)):
            for seed, images in enumerate(made):
                metric = blur_metric(self.kernel, seen.real, images, curves)
                found = metric(seen.groups)
                values[method, seed] = dict(zip(seen.groups.keys, found, strict=True))
        bases = {run: f"base {run[1]}" for run in values}  # every run is a complete one
        (row,) = effect_rows({BLUR: values}, rule, bases).to_dict("records")
        return Effect(**{name: row[name] for name in EFFECT})

    def told(self, effect: Effect) -> Finding:
        """What follows."""
        told = outcome(effect, self.test.smallest, confidence=self.rule.confidence)
        alarm = bool(effect.low > 0 or effect.high < 0)
        return Finding(alarm, effect.low, effect.high, effect.value, told.name)

    @property
    def rule(self) -> Protocol:
        """A protocol with this test alone."""
        return Protocol(tests=(self.test,))


@dataclass(frozen=True)
class Claim:
    """A situation, at differences of 0, X and 2 X."""

    what: str
    claim: str
    part: str
    itself: bool  # the generators blur; else each group has an error of its own that costs as much
    runs: int
    pixels: float  # equivalent blur of all that doesn't differ
    sizes: tuple[int, ...]  # subjects of the small group

    @property
    def test(self) -> Planned:
        """What is planned: the small group minus the large one, or everybody."""
        ends = (*OVERALL, "") if self.part == QUALITY else ("group", "small", "large")
        unknown = float("nan")  # a foretold error plays no part in a verdict
        return Planned(
            self.claim, self.part, BLUR, *ends, n=0, smallest=SMALLEST_BLUR, error=unknown,
            df=unknown,
        )  # fmt: skip

    def rows(self, config: ProofConfig, design: Planted) -> Iterator[Row]:
        """A row for each true size: worse by that between groups, better from a change."""
        judge = Decision(design.kernel, self.test)
        for times, may in MAY.items():
            size = times * SMALLEST_BLUR
            truth = size if self.claim == "C1" else 0.0 - size
            alike = "exchangeable" if self.part == QUALITY else "unequal"
            count = 2 * config.simulations if times == 1 else config.power_simulations

            def scene(null: str, n: int, truth: float = truth, alike: str = alike) -> Scene:
                everybody = tuple((name, self.pixels) for name in names_of(alike))
                (first, pixels), *rest = everybody
                differs = ((first, pixels + truth), *rest)
                methods = (differs,) if self.claim == "C1" else (everybody, differs)
                laws = tuple(
                    tuple(self._runs(design, *one) for one in groups) for groups in methods
                )
                return Blurring(SamePatients(laws, (n, config.reference), self.runs))

            yield Row(
                self.what, self.sizes, scene, (Says(OURS, "equivalent_blur", judge, may, count),),
                nulls=("none" if times else alike,), ratio=1 + truth / self.pixels, truth=truth,
            )  # fmt: skip

    def _runs(self, design: Planted, group: str, pixels: float) -> tuple[GaussianLaw, ...]:
        """Equally likely runs; a single run is as planted: what another gives is not asked."""
        scores = run_scores() if self.runs > 1 else [0.0]
        return tuple(
            design.law_of_blur(group, self.itself, pixels + RUN_SPREAD * away) for away in scores
        )


def claims(config: ProofConfig) -> list[Claim]:
    """The list."""
    wide, little = config.pixels, Protocol().expected_blur
    sizes, three = config.naive_sizes, f"{LEAST_RUNS} runs"
    return [
        Claim("a blur, one run", "C1", DISPARITY, True, 1, wide, sizes),
        Claim("errors that cost a blur, one run", "C1", DISPARITY, False, 1, wide, sizes),
        Claim("a little blur, one run", "C1", DISPARITY, True, 1, little, sizes[-1:]),
        Claim(f"a blur, {three}", "C1", DISPARITY, True, LEAST_RUNS, wide, sizes),
        # what runs do is all but what patients do here: their number hardly matters
        Claim(f"change of a difference, {three}", "C2", EQUITY, False, LEAST_RUNS, wide, sizes[:1]),
        Claim(f"change of everybody, {three}", "C2", QUALITY, True, LEAST_RUNS, wide, sizes[-1:]),
    ]


def decision_cells(config: ProofConfig) -> list[Cell]:
    """All cells of the set."""
    design = Planted.of(config)
    return [
        cell
        for claim in claims(config)
        for row in claim.rows(config, design)
        for cell in row.cells()
    ]
