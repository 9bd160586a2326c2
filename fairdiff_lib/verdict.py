"""One verdict per claim and dataset (T14), by the rule of :mod:`protocol`.

It reads the study's own tables and nothing else, and it never turns "no difference seen" into
"no difference": that takes a test of equivalence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats
from statsmodels.stats.multitest import multipletests

from fairdiff_lib.contrasts import PRIMARY, SPREAD
from fairdiff_lib.protocol import Protocol
from fairdiff_lib.seeds import t_interval
from fairdiff_lib.tables import single_seeds

SUPPORTED = "supported"
CONTRADICTED = "contradicted"
INCONCLUSIVE = "inconclusive"
NOT_TESTABLE = "not testable here"

CLAIMS: dict[str, str] = {
    "C1": "Stable Diffusion fine-tuned on medical images differs in quality between groups",
    "C2": "FairDiffusion improves image quality and its equity",
    "C3": "FairDiffusion's images train better and fairer classifiers",
    "C4": "The same holds on other modalities",
}
PLANTED = "planted"  # stands as the claim of what a simulation put in
COLUMNS = (
    "dataset", "claim", "statement", "verdict", "seeds", "p", "p_holm", "reason", "protocol",
)  # fmt: skip


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
    planted : mapping of (attribute, level) to str
        What a simulation put in, in words.
    before : bool
        The protocol was written before any test image existed.
    """

    dataset: str
    attributes: Sequence[str]
    quality: pd.DataFrame
    contrasts: pd.DataFrame
    downstream: pd.DataFrame
    failed: Sequence[str] = ()
    planted: Mapping[tuple[str, str], str] | None = None
    before: bool = True


@dataclass(frozen=True)
class Finding:
    """What a claim's endpoint showed, before the claims are corrected for each other.

    Attributes
    ----------
    p : float
        Of the primary endpoint; NaN where it has no test.
    if_clear, otherwise : str
        The verdict if p survives Holm's correction, and if it doesn't.
    reason : str
    """

    p: float
    if_clear: str
    otherwise: str
    reason: str


def verdicts(evidence: Evidence, rule: Protocol) -> pd.DataFrame:
    """T14's rows of one dataset.

    The claims that can be tested here are one family: their p are corrected after Holm.

    Returns
    -------
    DataFrame
        dataset, claim, statement, verdict, seeds (per method), p, p_holm, reason, protocol (the
        hash); for simulated data a last row on what was planted.
    """
    found = {
        "C1": judge_disparity(evidence, rule),
        "C2": judge_quality(evidence, rule),
        "C3": judge_downstream(evidence, rule),
    }
    found["C4"] = judge_elsewhere(evidence, found["C2"], found["C3"])
    adjusted = holm([finding.p for finding in found.values()])
    seeds = len(common_seeds(evidence.quality, "method", rule))
    shared = {"dataset": evidence.dataset, "seeds": seeds, "protocol": rule.sha256}
    rows = []
    for (claim, finding), p in zip(found.items(), adjusted, strict=True):
        verdict = finding.if_clear if p < 1 - rule.confidence else finding.otherwise
        verdict, reason = _limited(verdict, finding.reason, evidence)
        own = {"claim": claim, "statement": CLAIMS[claim], "verdict": verdict, "reason": reason}
        rows.append({**shared, **own, "p": finding.p, "p_holm": p})
    rows += [{**shared, **row} for row in _planted_rows(evidence, rule)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def holm(p: ArrayLike) -> np.ndarray:
    """Holm's adjusted p (1979) of those that are numbers; NaN for the others."""
    raw = np.asarray(p, dtype=np.float64)
    adjusted = np.full(len(raw), np.nan)
    known = np.isfinite(raw)
    if known.any():
        adjusted[known] = multipletests(raw[known], method="holm")[1]
    return adjusted


def _limited(verdict: str, reason: str, evidence: Evidence) -> tuple[str, str]:
    """A failed gate makes a finding inconclusive; a late protocol is said."""
    if evidence.failed and verdict in (SUPPORTED, CONTRADICTED):
        reason = f"{evidence.failed[0]}; without the gates: {verdict} ({reason})"
        verdict = INCONCLUSIVE
    if not evidence.before and verdict != NOT_TESTABLE:
        reason += "; the protocol was written after test images existed"
    return verdict, reason


def common_seeds(table: pd.DataFrame, column: str, rule: Protocol) -> list[str]:
    """Seeds that both the baseline and the method were run with."""
    single = single_seeds(table)
    seeds = [
        set(single.loc[single[column] == name, "seeds"].astype(str))
        for name in (rule.baseline, rule.method)
    ]
    return sorted(seeds[0] & seeds[1])


# -- C1: levels differ -----------------------------------------------------------------------


def judge_disparity(evidence: Evidence, rule: Protocol) -> Finding:
    """C1: KID of the baseline, as the mean over its seeds' models, differs between levels.

    Its p is the smallest max-|t| adjusted one over the declared contrasts. The models share the
    patients, so it is made once, on the mean of the models' estimates: one p per seed would
    count every patient several times. It speaks of the mean of these models, for new patients.

    Supported where a contrast is clear and at least the smallest effect; contradicted where all
    of them are equivalent to nothing.
    """
    if evidence.dataset.endswith("_simulated"):
        reason = "the disparity of simulated data is planted, not found"
        return Finding(float("nan"), NOT_TESTABLE, NOT_TESTABLE, reason)
    own = evidence.contrasts
    own = own[(own["method"] == rule.baseline) & (own["role"] == PRIMARY)]
    own = own[(own["metric"] == rule.metric) & np.isfinite(own["p_adjusted"])]
    if own.empty:
        reason = "no declared contrast has enough subjects"
        return Finding(float("nan"), INCONCLUSIVE, INCONCLUSIVE, reason)
    level = 1 - rule.confidence
    large = (own["p_adjusted"] < level) & (own["value"].abs() >= own["smallest_effect"])
    otherwise = CONTRADICTED if (own["p_equivalence"] < level).all() else INCONCLUSIVE
    return Finding(
        float(own["p_adjusted"].min()),
        SUPPORTED if large.any() else otherwise,
        otherwise,
        _disparity_words(own, rule),
    )


def _disparity_words(own: pd.DataFrame, rule: Protocol) -> str:
    """The clearest contrast, the smallest effect, and what could have been missed."""
    row = own.iloc[int(own["p_adjusted"].argmin())]
    seeds = str(row["seeds"]).count(",") + 1
    ratio = own["mde_ratio"].max()
    missed = f"up to {own['mde'].max():.3g}" + (f" (ratio {ratio:.3g})" if ratio > 0 else "")
    return (
        f"mean of {seeds} model(s), {len(own)} declared contrast(s); clearest: "
        f"{row['attribute']} {row['level']} minus {row['reference']} {row['value']:.3g} "
        f"({row['low']:.3g} to {row['high']:.3g}), adjusted p {row['p_adjusted']:.2g}; smallest "
        f"effect of interest {row['smallest_effect']:.3g}; a contrast could have been missed "
        f"{missed}"
    )


# -- C2 and C3: methods compared over seeds --------------------------------------------------


@dataclass(frozen=True)
class Change:
    """A paired change over seeds; below 0 is better."""

    mean: float
    low: float
    high: float
    p: float
    detectable: float  # with 80% power

    @classmethod
    def of(cls, values: ArrayLike, confidence: float) -> Change:
        """From one value per seed; a spread of zero has no p."""
        known = np.asarray(values, dtype=np.float64)
        known = known[np.isfinite(known)]
        mean, sd, low, high = t_interval(known, confidence)
        if not sd > 0:
            return cls(mean, low, high, float("nan"), float("nan"))
        error, df = sd / len(known) ** 0.5, len(known) - 1
        reach = stats.t.ppf((1 + confidence) / 2, df) + stats.t.ppf(0.8, df)
        p = float(2 * stats.t.sf(abs(mean) / error, df))
        return cls(mean, low, high, p, float(reach * error))

    def __str__(self) -> str:
        return (
            f"{self.mean:.3g} ({self.low:.3g} to {self.high:.3g}; detectable {self.detectable:.2g})"
        )


def few(seeds: Sequence[str], rule: Protocol) -> Finding:
    """Too few seeds decide nothing."""
    reason = (
        f"{len(seeds)} training seed(s) of both methods; "
        f"a comparison of methods needs at least {rule.least_seeds}"
    )
    return Finding(float("nan"), INCONCLUSIVE, INCONCLUSIVE, reason)


def judge_quality(evidence: Evidence, rule: Protocol) -> Finding:
    """C2: over paired seeds, the mean squared KID difference between levels falls.

    The endpoint is ``<metric>_disparity``, unbiased for the squared difference, averaged over the
    attributes. Supported where it clearly falls, no level's KID is worse by more than the
    levelling-down margin, and the overall KID isn't clearly worse; contradicted where it
    clearly rises.
    """
    seeds = common_seeds(evidence.quality, "method", rule)
    if len(seeds) < rule.least_seeds:
        return few(seeds, rule)
    table = single_seeds(evidence.quality)
    table = table[table["seeds"].astype(str).isin(seeds) & (table["features"] == rule.features)]
    squared = _by_method(table[table["metric"] == f"{rule.metric}_disparity"], ["seeds"])
    values = _by_method(table[table["metric"] == rule.metric], ["attribute", "level", "seeds"])
    if squared.empty:
        reason = "no attribute has two levels with enough subjects"
        return Finding(float("nan"), INCONCLUSIVE, INCONCLUSIVE, reason)
    gap = squared[rule.method] - squared[rule.baseline]
    equity = Change.of(gap, rule.confidence)
    overall = values.xs("overall", level="attribute")
    quality = Change.of(overall[rule.method] - overall[rule.baseline], rule.confidence)
    worse = levelled_down(values, evidence.attributes, rule)
    size = (rule.smallest_effect * overall[rule.baseline].mean()) ** 2
    reason = (
        f"paired change over {len(seeds)} seeds (below 0 is better): squared difference between "
        f"levels {equity}, smallest effect of interest {size:.2g}; overall KID {quality}"
    )
    if worse:
        reason += f"; a level may be worse by over {rule.levelling_down:.0%}: {', '.join(worse)}"
    good = not worse and not quality.low > 0
    clear = CONTRADICTED if equity.mean > 0 else SUPPORTED if good else INCONCLUSIVE
    return Finding(equity.p, clear, INCONCLUSIVE, reason)


def quality_verdict(evidence: Evidence, rule: Protocol, p_adjusted: float) -> dict[str, Any]:
    """C2 by itself, of ``rule.method``: a row in ``COLUMNS``, its p adjusted by the caller."""
    finding = judge_quality(evidence, rule)
    clear = p_adjusted < 1 - rule.confidence
    verdict, reason = _limited(
        finding.if_clear if clear else finding.otherwise, finding.reason, evidence
    )
    seeds = len(common_seeds(evidence.quality, "method", rule))
    return {
        "dataset": evidence.dataset,
        "claim": "C2",
        "statement": CLAIMS["C2"],
        "verdict": verdict,
        "seeds": seeds,
        "p": finding.p,
        "p_holm": p_adjusted,
        "reason": reason,
        "protocol": rule.sha256,
    }


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


def judge_downstream(evidence: Evidence, rule: Protocol) -> Finding:
    """C3: over paired seeds, AUC and mean equity-scaled AUC of the primary condition rise.

    Both must, so the larger p is the endpoint's (intersection-union); against the claim speaks
    either, so there the smaller one counts twice.
    """
    seeds = common_seeds(evidence.downstream, "source", rule)
    if len(seeds) < rule.least_seeds:
        return few(seeds, rule)
    table = single_seeds(evidence.downstream).rename(columns={"source": "method"})
    table = table[table["seeds"].astype(str).isin(seeds) & (table["level"] == "all")]
    table = table[table["condition"] == rule.condition]
    changes = {}
    for name, metric in (("AUC", "auc"), ("equity-scaled AUC", "es_auc")):
        wide = _by_method(table[table["metric"] == metric], ["seeds"])
        changes[name] = Change.of(wide[rule.baseline] - wide[rule.method], rule.confidence)
    text = ", ".join(f"{name} {change}" for name, change in changes.items())
    reason = f"paired change over {len(seeds)} seeds (below 0 is better): {text}"
    against = [change.p for change in changes.values() if change.mean > 0]
    if against:
        return Finding(min(1.0, 2 * float(np.min(against))), CONTRADICTED, INCONCLUSIVE, reason)
    p = float(np.max([change.p for change in changes.values()]))
    return Finding(p, SUPPORTED, INCONCLUSIVE, reason)


def judge_elsewhere(evidence: Evidence, quality: Finding, downstream: Finding) -> Finding:
    """C4: C2 and C3 on a dataset other than FairGenMed; both must hold, as in C3."""
    nan = float("nan")
    if evidence.dataset.startswith("fairgenmed"):
        return Finding(nan, NOT_TESTABLE, NOT_TESTABLE, "needs HAM10000 or CheXpert")
    if evidence.dataset.endswith("_simulated"):
        return Finding(nan, NOT_TESTABLE, NOT_TESTABLE, "needs the real dataset")
    parts = [quality, downstream]
    reason = f"both endpoints together: p of C2 {quality.p:.2g}, of C3 {downstream.p:.2g}"
    untested = [name for name, part in zip(("C2", "C3"), parts, strict=True) if np.isnan(part.p)]
    if untested:
        reason = f"needs C2 and C3, of which {' and '.join(untested)} could not be tested"
    against = [part.p for part in parts if part.if_clear == CONTRADICTED]
    if against:
        return Finding(min(1.0, 2 * float(np.min(against))), CONTRADICTED, INCONCLUSIVE, reason)
    both = all(part.if_clear == SUPPORTED for part in parts)
    p = float(np.max([part.p for part in parts]))  # NaN where either has none
    return Finding(p, SUPPORTED if both else INCONCLUSIVE, INCONCLUSIVE, reason)


# -- what a simulation planted ---------------------------------------------------------------


def _planted_rows(evidence: Evidence, rule: Protocol) -> list[dict[str, Any]]:
    """What was planted beside what was measured: no claim of the paper, a check of the audit."""
    if evidence.planted is None:
        return []
    own = evidence.contrasts
    own = own[(own["method"] == rule.baseline) & (own["metric"] == rule.metric)]
    own = own[(own["features"] == rule.features) & (own["level"] != SPREAD)]
    own = own[own["seeds"].astype(str).str.len() == own["seeds"].astype(str).str.len().max()]
    said, seen = [], []
    for (attribute, level), what in evidence.planted.items():
        row = own[(own["attribute"] == attribute) & (own["level"] == level)]
        seen.append(bool((row["p_adjusted"] < 1 - rule.confidence).any()))
        said.append(f"{what} for {attribute} {level}: {_measured(row)}")
    none = "nothing planted"
    return [
        {
            "claim": PLANTED,
            "statement": "; ".join(part.split(":")[0] for part in said) or none,
            "verdict": f"{sum(seen)} of {len(seen)} seen in KID" if seen else none,
            "p": float("nan"),
            "p_holm": float("nan"),
            "reason": "; ".join(said) or none,
        }
    ]


def _measured(row: pd.DataFrame) -> str:
    if row.empty or not np.isfinite(row["value"].iloc[0]):
        return "no contrast could be measured"
    one = row.iloc[0]
    return (
        f"KID minus that of {one['reference']} measured as {one['value']:.3g} "
        f"({one['low']:.3g} to {one['high']:.3g}), adjusted p {one['p_adjusted']:.2g}"
    )
