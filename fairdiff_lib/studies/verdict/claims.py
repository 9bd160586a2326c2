"""C1 to C4: what a study's tables say of each claim, and the one rule that makes it a verdict.

Nothing here turns "no difference seen" into "no difference": that takes a test of equivalence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats
from statsmodels.stats.multitest import multipletests

from fairdiff_lib.audit.contrasts import PRIMARY
from fairdiff_lib.audit.seeds import single_seeds, t_interval
from fairdiff_lib.datasets import dataset_of
from fairdiff_lib.settings.names import method_name, name_of
from fairdiff_lib.studies.verdict.protocol import Protocol

SUPPORTED = "supported"
CONTRADICTED = "contradicted"
INCONCLUSIVE = "inconclusive"
NOT_TESTABLE = "not testable here"
CLAIMS: dict[str, str] = {
    "C1": "Stable Diffusion fine-tuned on medical images differs in quality between groups",
    "C2": "FairDiffusion improves image quality and its equity",
    "C3": "FairDiffusion's images train better and fairer classifiers",
    "C4": "C2 and C3 hold on a modality other than fundus photography, too",
}
GAINS = {"auc": "AUC", "es_auc": "equity-scaled AUC"}  # C3's endpoints
MAIN, ABLATION = "main", "ablation"  # studies that a verdict rests on
POWER = 0.8  # with which the minimum detectable effect would be found
NAN = float("nan")


@dataclass(frozen=True)
class Effect:
    """The number that a verdict rests on; NaN and None where there is none.

    Attributes
    ----------
    endpoint, unit : str
        What was measured, and in what.
    value, low, high : float
        With its interval at the protocol's confidence.
    smallest_effect : float
        Smallest effect of interest, declared beforehand.
    mde : float
        Minimum detectable effect, with 80% power.
    n, seeds : int or None
        Test subjects and training seeds that it rests on.
    """

    endpoint: str = ""
    unit: str = ""
    value: float = NAN
    low: float = NAN
    high: float = NAN
    smallest_effect: float = NAN
    mde: float = NAN
    n: int | None = None
    seeds: int | None = None


@dataclass(frozen=True)
class Finding:
    """What a claim's endpoint showed, before the claims are corrected for each other.

    Attributes
    ----------
    p : float
        Of the primary endpoint; NaN where it has no test.
    speaks : str
        ``SUPPORTED`` or ``CONTRADICTED``: what p says if it is clear; empty for neither.
    reason : str
    effect : Effect
    equivalent : bool
        A test of equivalence excludes all that is of interest.
    testable : bool
        These data can test the claim.
    """

    p: float
    speaks: str
    reason: str
    effect: Effect = field(default_factory=Effect)
    equivalent: bool = False
    testable: bool = True


def outcome(finding: Finding, p_adjusted: float, confidence: float, failed: bool = False) -> str:
    """The rule: one verdict from what was found.

    Parameters
    ----------
    finding : Finding
    p_adjusted : float
        After Holm's correction over the claims; NaN where nothing was tested.
    confidence : float
        1 - confidence is the error rate of the family.
    failed : bool
        A gate failed: then nothing is concluded.
    """
    if not finding.testable:
        return NOT_TESTABLE
    if failed:
        return INCONCLUSIVE
    if p_adjusted < 1 - confidence and finding.speaks:
        return finding.speaks
    return CONTRADICTED if finding.equivalent else INCONCLUSIVE


def holm(p: ArrayLike) -> np.ndarray:
    """Holm's adjusted p (1979) of those that are numbers; NaN for the others."""
    raw = np.asarray(p, dtype=np.float64)
    adjusted = np.full(len(raw), np.nan)
    known = np.isfinite(raw)
    if known.any():
        adjusted[known] = multipletests(raw[known], method="holm")[1]
    return adjusted


@dataclass(frozen=True)
class Change:
    """A paired change over seeds; ``detectable`` with 80% power."""

    mean: float
    low: float
    high: float
    p: float
    detectable: float

    @classmethod
    def of(cls, values: ArrayLike, confidence: float) -> Change:
        """From one value per seed; a spread of zero has no p."""
        known = np.asarray(values, dtype=np.float64)
        known = known[np.isfinite(known)]
        mean, sd, low, high = t_interval(known, confidence)
        if not sd > 0:
            return cls(mean, low, high, NAN, NAN)
        error, df = sd / len(known) ** 0.5, len(known) - 1
        reach = stats.t.ppf((1 + confidence) / 2, df) + stats.t.ppf(POWER, df)
        p = float(2 * stats.t.sf(abs(mean) / error, df))
        return cls(mean, low, high, p, float(reach * error))

    def effect(self, endpoint: str, unit: str, n: int, seeds: int, smallest: float) -> Effect:
        """This change as the number of a verdict; the last as in :class:`Effect`."""
        numbers = (self.mean, self.low, self.high, smallest, self.detectable)
        return Effect(endpoint, unit, *numbers, n, seeds)

    def __str__(self) -> str:
        return (
            f"{self.mean:.3g} ({self.low:.3g} to {self.high:.3g}; detectable {self.detectable:.2g})"
        )


@dataclass(frozen=True)
class Evidence:
    """What a dataset's run left for the verdict.

    Attributes
    ----------
    dataset : str
    attributes : sequence of str
        Demographic attributes.
    quality : DataFrame
        T2 or T8: dataset, method, seeds, attribute, level, metric, features, n, value.
    contrasts : DataFrame
        tab_contrasts: method, seeds, then ``contrasts.CONTRAST_COLUMNS``.
    downstream : DataFrame
        T4 or T9, by ``tables.as_read``: source, seeds, condition, attribute, level, metric, value.
    failed : sequence of str
        Gates that failed, a line each.
    before : bool
        The protocol was written before any test image existed.
    model : str
        The generator's kind and size, in words.
    study : str
        ``MAIN`` or ``ABLATION``.
    """

    dataset: str
    attributes: Sequence[str]
    quality: pd.DataFrame
    contrasts: pd.DataFrame
    downstream: pd.DataFrame
    failed: Sequence[str] = ()
    before: bool = True
    model: str = ""
    study: str = MAIN


def findings(evidence: Evidence, rule: Protocol) -> dict[str, Finding]:
    """What the tables show of each claim."""
    quality, downstream = image_quality(evidence, rule), classifiers(evidence, rule)
    elsewhere = both_elsewhere(evidence, quality, downstream)
    return {"C1": disparity(evidence, rule), "C2": quality, "C3": downstream, "C4": elsewhere}


def few_seeds(seeds: Sequence[str], rule: Protocol, effect: Effect | None = None) -> Finding:
    """Too few seeds decide nothing; their mean is shown, no detectable size is read from them."""
    reason = (
        f"{len(seeds)} training seed(s) of both methods; "
        f"a comparison of methods needs at least {rule.least_seeds}"
    )
    return Finding(NAN, "", reason, replace(effect or Effect(), mde=NAN, seeds=len(seeds)))


def common_seeds(table: pd.DataFrame, column: str, rule: Protocol) -> list[str]:
    """Seeds that both the baseline and the method were run with."""
    single = single_seeds(table)
    seeds = [
        set(single.loc[single[column] == name, "seeds"].astype(str))
        for name in (rule.baseline, rule.method)
    ]
    return sorted(seeds[0] & seeds[1])


# -- C1: levels differ -----------------------------------------------------------------------


def disparity(evidence: Evidence, rule: Protocol) -> Finding:
    """C1: KID of the baseline, as the mean over its seeds' models, differs between levels.

    Its p is the smallest max-|t| adjusted one over the declared contrasts that are at least the
    smallest effect of interest, or over all where none is. It is made once, on the mean of the
    models' estimates, as they share the patients. Against the claim speaks that all contrasts are
    equivalent to nothing.
    """
    if dataset_of(evidence.dataset).simulated:
        reason = "the disparity of simulated data is planted, not found"
        return Finding(NAN, "", reason, testable=False)
    own = evidence.contrasts
    own = own[(own["method"] == rule.baseline) & (own["role"] == PRIMARY)]
    own = own[(own["metric"] == rule.metric) & np.isfinite(own["p_adjusted"])]
    if own.empty:
        return Finding(NAN, "", "no declared contrast has enough subjects")
    large = own[own["value"].abs() >= own["smallest_effect"]]
    shown = own if large.empty else large  # p, effect and words are of one and the same contrast
    return Finding(
        float(shown["p_adjusted"].min()),
        "" if large.empty else SUPPORTED,
        _disparity_words(shown, len(own)),
        _disparity_effect(shown, rule),
        equivalent=bool((own["p_equivalence"] < 1 - rule.confidence).all()),
    )


def _clearest(own: pd.DataFrame) -> pd.Series:
    return own.iloc[int(own["p_adjusted"].argmin())]


def _disparity_effect(own: pd.DataFrame, rule: Protocol) -> Effect:
    row = _clearest(own)
    name = (
        f"{rule.metric.upper()} of {method_name(rule.baseline)}'s images for "
        f"{row['attribute']} {row['level']} minus that for {row['reference']}"
    )
    return Effect(
        name,
        rule.metric.upper(),
        **{key: float(row[key]) for key in ("value", "low", "high", "smallest_effect", "mde")},
        n=int(row["n"] + row["n_reference"]),
        seeds=_models(row),
    )


def _models(row: pd.Series) -> int:
    return str(row["seeds"]).count(",") + 1


def _disparity_words(own: pd.DataFrame, declared: int) -> str:
    """The clearest contrast, the smallest effect, and what could have been missed."""
    row, ratio = _clearest(own), own["mde_ratio"].max()
    missed = f"up to {own['mde'].max():.3g}" + (f" (ratio {ratio:.3g})" if ratio > 0 else "")
    return (
        f"mean of {_models(row)} model(s), {declared} declared contrast(s); clearest: "
        f"{row['attribute']} {row['level']} minus {row['reference']} {row['value']:.3g} "
        f"({row['low']:.3g} to {row['high']:.3g}), adjusted p {row['p_adjusted']:.2g}; smallest "
        f"effect of interest {row['smallest_effect']:.3g}; a contrast could have been missed "
        f"{missed}"
    )


# -- C2 and C3: methods compared over seeds --------------------------------------------------


def image_quality(evidence: Evidence, rule: Protocol) -> Finding:
    """C2: over paired seeds, the mean squared KID difference between levels falls.

    The endpoint is ``<metric>_disparity``, unbiased for the squared difference, averaged over the
    attributes. For it speaks that it clearly falls, where no level's KID is worse by more than the
    levelling-down margin and the overall KID isn't clearly worse; against it, a clear rise.
    """
    seeds = common_seeds(evidence.quality, "method", rule)
    table = single_seeds(evidence.quality)
    table = table[table["seeds"].astype(str).isin(seeds) & (table["features"] == rule.features)]
    squared = _by_method(table[table["metric"] == f"{rule.metric}_disparity"], ["seeds"])
    if squared.empty and len(seeds) >= rule.least_seeds:
        return Finding(NAN, "", "no attribute has two levels with enough subjects")
    if squared.empty:
        return few_seeds(seeds, rule)
    values = _by_method(table[table["metric"] == rule.metric], ["attribute", "level", "seeds"])
    overall = values.xs("overall", level="attribute")
    equity = Change.of(squared[rule.method] - squared[rule.baseline], rule.confidence)
    size = (rule.smallest_effect * overall[rule.baseline].mean()) ** 2
    name = (
        f"change in the squared {rule.metric.upper()} difference between groups from "
        f"{method_name(rule.baseline)} to {method_name(rule.method)}"
    )
    n = int(table.loc[table["attribute"] == "overall", "n"].max())
    effect = equity.effect(name, f"squared {rule.metric.upper()}", n, len(seeds), size)
    if len(seeds) < rule.least_seeds:
        return few_seeds(seeds, rule, effect)
    quality = Change.of(overall[rule.method] - overall[rule.baseline], rule.confidence)
    reason = (
        f"paired change over {len(seeds)} seeds (below 0 is better): squared difference between "
        f"levels {equity}, smallest effect of interest {size:.2g}; overall KID {quality}"
    )
    worse = levelled_down(values, evidence.attributes, rule)
    if worse:
        reason += f"; a level may be worse by over {rule.levelling_down:.0%}: {', '.join(worse)}"
    good = not worse and not quality.low > 0
    speaks = CONTRADICTED if equity.mean > 0 else SUPPORTED if good else ""
    return Finding(equity.p, speaks, reason, effect)


def _by_method(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Mean value per key, a column per method; rows that both methods have."""
    wide: pd.DataFrame = table.groupby([*keys, "method"])["value"].mean().unstack("method")
    return wide.dropna()


def levelled_down(values: pd.DataFrame, attributes: Sequence[str], rule: Protocol) -> list[str]:
    """Levels that are worse by more than the margin, or that may be as far as anybody knows.

    A level of a declared contrast has to be shown to be no worse: the upper limit of its paired
    change over seeds (two-sided 90%, so one-sided 5%) must lie below the margin. Each has to pass,
    so no correction is needed. For smaller levels, the mean change must.
    """
    found = []
    declared = {(c.attribute, name) for c in rule.contrasts if c.role == PRIMARY
                for name in (c.level, c.reference)}  # fmt: skip
    for (attribute, level), own in values.groupby(level=["attribute", "level"], sort=False):
        if attribute not in attributes:
            continue
        margin = rule.levelling_down * own[rule.baseline].mean()
        change = Change.of(own[rule.method] - own[rule.baseline], 0.90)
        known = (attribute, level) in declared and np.isfinite(change.high)
        if (change.high if known else change.mean) > margin:
            found.append(str(level))
    return found


def classifiers(evidence: Evidence, rule: Protocol) -> Finding:
    """C3: over paired seeds, AUC and mean equity-scaled AUC of the primary condition rise.

    Both are means over the study's classifiers, and the latter over the attributes.
    Both must, so the larger p is the endpoint's (intersection-union); against the claim speaks
    either, so there the smaller one counts twice.
    """
    seeds = common_seeds(evidence.downstream, "source", rule)
    table = single_seeds(evidence.downstream).rename(columns={"source": "method"})
    table = table[table["seeds"].astype(str).isin(seeds) & (table["level"] == "all")]
    table = table[table["condition"] == rule.condition]
    if table.empty:
        return few_seeds(seeds, rule)
    changes = {name: _gain(table, metric, rule) for metric, name in GAINS.items()}
    n = int(table["n"].max())
    effects = {name: _gain_effect(name, own, n, len(seeds), rule) for name, own in changes.items()}
    if len(seeds) < rule.least_seeds:
        return few_seeds(seeds, rule, effects["AUC"])
    text = ", ".join(f"{name} {change}" for name, change in changes.items())
    reason = (
        f"paired change over {len(seeds)} seeds (above 0 is better): {text}; "
        "no smallest effect of interest was declared for them"
    )
    against = {name: own.p for name, own in changes.items() if own.mean < 0 and np.isfinite(own.p)}
    if against:
        clearest = min(against, key=lambda name: against[name])
        return Finding(min(1.0, 2 * against[clearest]), CONTRADICTED, reason, effects[clearest])
    weakest = max(changes, key=lambda name: np.nan_to_num(changes[name].p, nan=np.inf))
    return Finding(changes[weakest].p, SUPPORTED, reason, effects[weakest])


def _gain(table: pd.DataFrame, metric: str, rule: Protocol) -> Change:
    wide = _by_method(table[table["metric"] == metric], ["seeds"])
    return Change.of(wide[rule.method] - wide[rule.baseline], rule.confidence)


def _gain_effect(name: str, gain: Change, n: int, seeds: int, rule: Protocol) -> Effect:
    what = (
        f"change in the {name} for {name_of(rule.condition).lower()} of classifiers trained on "
        f"{method_name(rule.method)}'s in place of {method_name(rule.baseline)}'s images"
    )
    return gain.effect(what, name, n, seeds, NAN)


def both_elsewhere(evidence: Evidence, quality: Finding, downstream: Finding) -> Finding:
    """C4: C2 and C3 on a dataset other than FairGenMed; both must hold, as in C3."""
    own = dataset_of(evidence.dataset)
    if own.simulated:
        reason = "it needs real data other than FairGenMed"
        return Finding(NAN, "", reason, testable=False)
    if not own.elsewhere:
        return Finding(NAN, "", "it is judged on data other than FairGenMed", testable=False)
    parts = [quality, downstream]
    reason = f"both endpoints together: p of C2 {quality.p:.2g}, of C3 {downstream.p:.2g}"
    untested = [name for name, part in zip(("C2", "C3"), parts, strict=True) if np.isnan(part.p)]
    if untested:
        reason = f"needs C2 and C3, of which {' and '.join(untested)} could not be tested"
    against = [part for part in parts if part.speaks == CONTRADICTED and np.isfinite(part.p)]
    if against:
        worst = min(against, key=lambda part: part.p)
        return Finding(min(1.0, 2 * worst.p), CONTRADICTED, reason, worst.effect)
    if untested:
        effect = next(part.effect for part in parts if np.isnan(part.p))
        return Finding(NAN, "", reason, replace(effect, mde=NAN))
    both = all(part.speaks == SUPPORTED for part in parts)
    weakest = max(parts, key=lambda part: part.p)
    return Finding(weakest.p, SUPPORTED if both else "", reason, weakest.effect)
