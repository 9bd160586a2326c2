"""Audits of known truth, which the audit itself is judged by: notebook 10."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from fairdiff_lib.audit.decide import DIFFERENT, LARGER, NO_LARGER, UNDECIDED
from fairdiff_lib.settings.names import CHECKED, EQUALLY_GOOD, name_of
from fairdiff_lib.settings.options import ProofConfig
from fairdiff_lib.studies.proof.audits import SURE, judged, simulate
from fairdiff_lib.studies.proof.audits import OurAudit as OurAudit
from fairdiff_lib.studies.proof.audits import TwoGroups as TwoGroups
from fairdiff_lib.studies.proof.known import Planted as Planted
from fairdiff_lib.studies.proof.known import fid_bias as fid_bias

if TYPE_CHECKING:
    from fairdiff_lib.study import Study

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from fairdiff_lib.studies.proof.audits import (
    LEVEL,
    OURS,
    Cell,
    EquityScaled,
    Judge,
    NaiveTest,
    Rule,
    Scene,
    Situation,
    of_blur,
    of_common_mix,
    of_kid_on_plain_scale,
    of_originals,
    of_patients,
    of_runs,
    of_values,
)
from fairdiff_lib.studies.proof.known import (
    ATTRIBUTES,
    AUC,
    Blurring,
    Copied,
    Family,
    Means,
    Runs,
    Scores,
    SeveralImages,
    names_of,
)

OUTCOMES = {  # column of the verdicts' table: what a reader calls it
    "planted_ratio": "planted ratio",
    "n_min": "n",
    LARGER: "larger than X",
    DIFFERENT: "different, size open",
    NO_LARGER: "no difference larger than X",
    UNDECIDED: "undecided",
}


@dataclass(frozen=True)
class Proof:
    """What thousands of simulated audits showed."""

    table: pd.DataFrame  # tab_calibration: a row per cell, in ``audits.COLUMNS``
    truths: pd.DataFrame  # tab_truth: KID of the pools of images
    judged: pd.DataFrame  # tab_checks: every promise of the audit, and whether it is kept

    @property
    def verdicts(self) -> pd.DataFrame:
        """How often each outcome is given, by what is true, in a reader's words."""
        own = self.table[self.table["metric"] == "verdict"]
        return own[list(OUTCOMES)].rename(columns=OUTCOMES)

    @property
    def scalars(self) -> dict[str, Any]:
        """What the notebook records."""
        naive = self.table[self.table["metric"].eq("fid") & self.table["null"].eq("unequal")]
        return {
            **{"cells": len(self.table), "audits": int(self.table["simulations"].sum())},
            **{"checks": len(self.judged), "passed": int(self.judged["passed"].sum())},
            "naive_fid_alarms": float(naive["alarm"].min()),
        }


def prove(study: Study) -> Proof:
    """Simulate all audits of the proof, or what an interrupted run left of them."""
    from fairdiff_lib.studies.proof.images import pool_cells  # torch, which known laws don't need

    own = study.settings.proof
    with_images, truths = pool_cells(study)
    cells = with_images + (feature_cells(own) if "F" in own.layers else [])
    table = simulate(cells, study.places.proof, own.seed)
    return Proof(table, truths, judged(cells, table))


@dataclass(frozen=True)
class Decisions:
    """How verdicts in equivalent blur turned out where the truth is known."""

    table: pd.DataFrame  # tab_decisions: a row per cell, in ``audits.COLUMNS``
    judged: pd.DataFrame  # tab_decisions_checks

    def publish(self, study: Study) -> None:
        """Write both tables with their stamps."""
        study.publish("tab_decisions", self.table)
        study.publish("tab_decisions_checks", self.judged)

    @property
    def shown(self) -> pd.DataFrame:
        """Coverage and outcomes by what is true, in a reader's words."""
        words = {"situation": "situation", "n_min": "n", "truth": "true difference, px"}
        words |= {"mean": "mean estimate, px", "missed": CHECKED["missed"]}
        words |= {name: OUTCOMES[name] for name in (LARGER, DIFFERENT, NO_LARGER, UNDECIDED)}
        return self.table[list(words)].rename(columns=words)


def prove_decisions(study: Study, processes: int = 0) -> Decisions:
    """The set of verdicts in equivalent blur, by itself, or what an interrupted run left of it."""
    from fairdiff_lib.studies.proof.decisions import decision_cells  # which reads this module

    own = study.settings.proof
    cells = decision_cells(own)
    table = simulate(cells, study.places.proof, own.seed, processes)
    return Decisions(table, judged(cells, table))


def asked(config: ProofConfig) -> dict[str, Any]:
    """What is promised, for the sentence that states it."""
    return {"seed": config.seed, "simulations": config.simulations, "sure": SURE}


def shown(checks: pd.DataFrame) -> pd.DataFrame:
    """The checks in a reader's words, those that come nearest to their limits first."""
    near = (checks["limit"] - checks["rate"]).sort_values(kind="stable").index
    own = checks.loc[near]
    return pd.DataFrame(
        {
            "layer": own["layer"],
            "situation": own["situation"].where(
                own["situation"] != own["metric"], own["metric"].map(name_of)
            ),
            "metric": own["metric"].map(name_of),
            "groups": own["null"].map({**EQUALLY_GOOD, "": "both", "none": "not equally good"}),
            "n": own["n_min"],
            "counted": own["check"].map(CHECKED),
            "rate": own["rate"],
            "promised": own["promised"],
            "limit": own["limit"],
            "kept": own["passed"].map({True: "yes", False: "no"}),
        }
    )


# -- every cell of layer F: what is audited, by whom, how often, and what has to hold ------------

NULLS = ("exchangeable", "unequal")
BOTH_TAILS = {"alarm": LEVEL, "above": LEVEL / 2, "below": LEVEL / 2}
ALARM = {"alarm": LEVEL}
NEARLY, PERFECT = 0.05, 0.0  # x the planted KID
SHARES_ILL, FEW_ILL = (0.7, 0.2), (0.2, 0.5)  # of the small group, of the large one
MANY_COPIES, FEW_COPIES = 0.75, 0.02  # of the generated images
MOST_OFF = 0.01  # of a mean ES-AUC: half of the smallest difference that matters in AUC
AUC_GAP = 0.1  # that a test of equivalence has to tell from none


@dataclass(frozen=True)
class Says:
    """A procedure, and what it promises; one that promises nothing stands beside the audit."""

    procedure: str
    metric: str
    judge: Judge
    may: dict[str, float]
    simulations: int


@dataclass(frozen=True)
class Row:
    """Situations that differ in size and null, and who judges them."""

    what: str
    sizes: Sequence[int]
    scene: Callable[[str, int], Scene]  # of the null and the subjects of the smallest group
    says: tuple[Says, ...]
    nulls: tuple[str, ...] = NULLS
    ratio: float = 1.0
    truth: float = 0.0

    def cells(self) -> Iterator[Cell]:
        """A cell for each null, size and procedure."""
        for null in self.nulls:
            for n in self.sizes:
                scene = self.scene(null, n)
                at = Situation("F", self.what, null, n, scene, self.truth, self.ratio)
                for own in self.says:
                    yield Cell(at, own.procedure, own.metric, own.judge, own.simulations, own.may)


def feature_cells(config: ProofConfig) -> list[Cell]:
    """All cells of layer F."""
    return [cell for row in rows(config, Planted.of(config)) for cell in row.cells()]


def rows(config: ProofConfig, design: Planted) -> list[Row]:
    """The list: where groups are equally good; where they are not; verdicts."""
    kernel, whole, few = design.kernel, config.simulations, min(config.sizes)
    small, middle = config.family_sizes

    def ours(metric: str = "kid", may: Any = BOTH_TAILS, n: int = whole, **own: Any) -> Says:
        return Says(OURS, metric, OurAudit(kernel, **own), may, n)

    def beside(name: str, metric: str, judge: Judge, n: int = whole) -> Says:
        return Says(name, metric, judge, {}, n)

    def naive(name: str, repeats: int) -> Says:
        kid = name.startswith("kid")
        test = NaiveTest(name, repeats, kernel if kid else None)
        return beside(name, "kid" if kid else "fid", test, config.naive_simulations)

    def two(n: int) -> tuple[int, int]:
        return n, config.reference

    def plain(null: str, n: int, ratio: float = 1.0) -> TwoGroups:
        return TwoGroups(design.laws(null, ratio=ratio), two(n))

    def of_blur_law(null: str, n: int, itself: bool) -> Scene:
        laws = tuple(design.law_of_blur(group, itself) for group in names_of(null))
        return Blurring(TwoGroups(laws, two(n)))

    def worse(ratio: float, null: str, n: int) -> Scene:
        return TwoGroups((design.law("small", ratio), design.law("large")), two(n))

    def family(null: str, n: int, attributes: Any, ratio: float = 1.0) -> Scene:
        groups = ("large",) * 3 if null == "exchangeable" else ATTRIBUTES["race"]
        ratios = (ratio, 1.0, 1.0)
        laws = tuple(design.law(g, r) for g, r in zip(groups, ratios, strict=True))
        return Family(laws, (n, middle, config.reference), attributes)

    def values(metric: str) -> Callable[[str, int], Scene]:
        if metric == "auc":
            return lambda null, n: Scores(two(n), null == "unequal")
        return lambda null, n: Means(metric, two(n), null == "unequal")

    t_interval = OurAudit(kernel, of_kid_on_plain_scale)
    race = {"race": ATTRIBUTES["race"]}
    permuted = [naive(f"kid_{n}_permutation", config.permutations) for n in ("raw", "equal_n")]
    equal = [
        Row("two groups", config.sizes, plain,
            (ours(), beside("kid_t_interval", "kid", t_interval), *permuted,
             naive("kid_bootstrap_self_pairs", config.bootstrap))),
        Row("two groups of one FID", config.naive_sizes,
            lambda null, n: TwoGroups(design.laws(null, of_fid=True), two(n)),
            (naive("fid_permutation", config.permutations),
             naive("fid_equal_n_permutation", config.permutations),
             naive("released_t_test", config.replicates))),
        Row("nearly perfect", config.sizes, lambda null, n: plain(null, n, NEARLY), (ours(),)),
        Row("perfect", config.sizes, lambda null, n: plain(null, n, PERFECT), (ours(),)),
        Row("several images", (small,),
            lambda null, n: SeveralImages(design.laws(null), two(n), config.alike), (ours(),)),
        Row("three levels", (small,), lambda null, n: family(null, n, race),
            (ours("kid_family", ALARM, config.dear_simulations, family=True),)),
        Row("three attributes", (few,), lambda null, n: family(null, n, ATTRIBUTES),
            (ours("kid_family", ALARM, config.dear_simulations, family=True),)),
        Row("case mix", (small,), lambda null, n: design.case_mix(null, n, SHARES_ILL),
            (ours("kid_standardised", make=of_common_mix),
             beside("kid_crude", "kid_standardised", OurAudit(kernel)))),
        Row("small strata", (few,), lambda null, n: design.case_mix(null, n, FEW_ILL),
            (ours("kid_standardised", make=of_common_mix),)),
        Row("few copies", (middle,), lambda null, n: Copied(plain(null, n), FEW_COPIES),
            (ours(make=of_originals),)),
        Row("many copies", (small,), lambda null, n: Copied(plain(null, n), MANY_COPIES),
            (ours("kid_guarded", {"given": 0.0, "alarm": 0.0}, make=of_originals),
             beside("copies_ignored", "kid", OurAudit(kernel)))),
        Row("several runs", (small,),
            lambda null, n: Runs(tuple(map(design.laws_of_runs, names_of(null))), two(n),
                                 config.runs),
            (ours("kid_over_runs", n=config.dear_simulations, make=of_runs),
             beside("patients_only", "kid_over_runs", OurAudit(kernel, of_patients),
                    config.dear_simulations))),
        Row("perfect, in blur", (few,),
            lambda null, n: Blurring(plain(null, n, PERFECT)),
            (ours("equivalent_blur", make=of_blur),)),
        Row("one blur", config.naive_sizes, lambda null, n: of_blur_law(null, n, True),
            (ours("equivalent_blur", make=of_blur),
             beside("kid_instead", "kid", OurAudit(kernel)))),
        Row("errors that cost one blur", config.naive_sizes,
            lambda null, n: of_blur_law(null, n, False),
            (ours("equivalent_blur", make=of_blur),), nulls=NULLS[1:]),
        *(Row(metric, config.sizes, values(metric), (ours(metric, make=of_values),))
          for metric in ("auc", "accuracy", "denoising_loss")),
        Row("equity scaled", (few,), values("auc"),
            (Says(OURS, "es_auc", EquityScaled(), {"off": MOST_OFF}, whole),),
            nulls=NULLS[:1]),
        Row("equity scaled as usual", (few,), values("auc"),
            (beside("es_as_usual", "es_auc", EquityScaled(of_chance=False)),),
            nulls=NULLS[:1], truth=AUC),
    ]  # fmt: skip
    planted = [
        Row("two groups", config.sizes, partial(worse, ratio),
            (ours(may=BOTH_TAILS_OF_TRUTH | EQUIVALENCE, n=config.power_simulations,
                  margin=(ratio - 1) * config.kid),),
            nulls=("none",), ratio=ratio, truth=(ratio - 1) * config.kid)
        for ratio in config.ratios
    ]  # fmt: skip
    apart = Row(
        "auc", config.naive_sizes, lambda null, n: Scores(two(n), True, (AUC - AUC_GAP, AUC)),
        (ours("auc", BOTH_TAILS_OF_TRUTH | EQUIVALENCE, make=of_values, margin=AUC_GAP),),
        nulls=("none",), ratio=(AUC - AUC_GAP) / AUC, truth=-AUC_GAP,
    )  # fmt: skip
    smallest = config.smallest * config.kid
    verdicts = [
        Row("verdict", config.sizes, partial(family, attributes=race, ratio=ratio),
            (Says(OURS, "verdict", Rule(kernel, smallest), may, whole),),
            nulls=("unequal" if ratio == 1 else "none",), ratio=ratio,
            truth=(ratio - 1) * config.kid)
        for ratio, may in (
            (1.0, {"seen": LEVEL}),
            (1.0 + config.smallest, {LARGER: LEVEL, NO_LARGER: LEVEL}),
            (1.0 + 2 * config.smallest, {NO_LARGER: LEVEL}),
        )
    ]  # fmt: skip
    return [*equal, *planted, apart, *verdicts]


# where there is something to find, an alarm is none
BOTH_TAILS_OF_TRUTH = {"missed": LEVEL, "above": LEVEL / 2, "below": LEVEL / 2}
EQUIVALENCE = {NO_LARGER: LEVEL}  # at a truth of just the margin
