"""C1 to C4, each judged on a study's tables by the rule of :mod:`protocol`.

Nothing here turns "no difference seen" into "no difference": that takes a test of equivalence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from fairdiff_lib.audit.contrasts import PRIMARY
from fairdiff_lib.audit.seeds import single_seeds
from fairdiff_lib.datasets import dataset_of
from fairdiff_lib.settings.names import method_name, name_of
from fairdiff_lib.studies.verdict.findings import (
    CONTRADICTED,
    INCONCLUSIVE,
    MAIN,
    NOT_TESTABLE,
    SUPPORTED,
    Change,
    Effect,
    Finding,
    few,
)
from fairdiff_lib.studies.verdict.protocol import Protocol

GAINS = {"auc": "AUC", "es_auc": "equity-scaled AUC"}  # C3's endpoints


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

    Its p is the smallest max-|t| adjusted one over the declared contrasts that are at least the
    smallest effect of interest, or over all where none is. The models share the
    patients, so it is made once, on the mean of the models' estimates: one p per seed would
    count every patient several times. It speaks of the mean of these models, for new patients.

    Supported where a contrast is clear and at least the smallest effect; contradicted where all
    of them are equivalent to nothing.
    """
    if dataset_of(evidence.dataset).simulated:
        reason = "the disparity of simulated data is planted, not found"
        return Finding.fixed(NOT_TESTABLE, reason)
    own = evidence.contrasts
    own = own[(own["method"] == rule.baseline) & (own["role"] == PRIMARY)]
    own = own[(own["metric"] == rule.metric) & np.isfinite(own["p_adjusted"])]
    if own.empty:
        return Finding.fixed(INCONCLUSIVE, "no declared contrast has enough subjects")
    level = 1 - rule.confidence
    otherwise = CONTRADICTED if (own["p_equivalence"] < level).all() else INCONCLUSIVE
    large = own[own["value"].abs() >= own["smallest_effect"]]
    shown = own if large.empty else large  # p, effect and words are of one and the same contrast
    return Finding(
        float(shown["p_adjusted"].min()),
        otherwise if large.empty else SUPPORTED,
        otherwise,
        _disparity_words(shown, len(own)),
        _disparity_effect(shown, rule),
    )


def _clearest(own: pd.DataFrame) -> pd.Series:
    return own.iloc[int(own["p_adjusted"].argmin())]


def _disparity_effect(own: pd.DataFrame, rule: Protocol) -> Effect:
    """The clearest contrast."""
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
    row = _clearest(own)
    seeds = _models(row)
    ratio = own["mde_ratio"].max()
    missed = f"up to {own['mde'].max():.3g}" + (f" (ratio {ratio:.3g})" if ratio > 0 else "")
    return (
        f"mean of {seeds} model(s), {declared} declared contrast(s); clearest: "
        f"{row['attribute']} {row['level']} minus {row['reference']} {row['value']:.3g} "
        f"({row['low']:.3g} to {row['high']:.3g}), adjusted p {row['p_adjusted']:.2g}; smallest "
        f"effect of interest {row['smallest_effect']:.3g}; a contrast could have been missed "
        f"{missed}"
    )


# -- C2 and C3: methods compared over seeds --------------------------------------------------


def judge_quality(evidence: Evidence, rule: Protocol) -> Finding:
    """C2: over paired seeds, the mean squared KID difference between levels falls.

    The endpoint is ``<metric>_disparity``, unbiased for the squared difference, averaged over the
    attributes. Supported where it clearly falls, no level's KID is worse by more than the
    levelling-down margin, and the overall KID isn't clearly worse; contradicted where it
    clearly rises.
    """
    seeds = common_seeds(evidence.quality, "method", rule)
    table = single_seeds(evidence.quality)
    table = table[table["seeds"].astype(str).isin(seeds) & (table["features"] == rule.features)]
    squared = _by_method(table[table["metric"] == f"{rule.metric}_disparity"], ["seeds"])
    if squared.empty and len(seeds) >= rule.least_seeds:
        return Finding.fixed(INCONCLUSIVE, "no attribute has two levels with enough subjects")
    if squared.empty:
        return few(seeds, rule)
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
        return few(seeds, rule, effect)
    quality = Change.of(overall[rule.method] - overall[rule.baseline], rule.confidence)
    reason = (
        f"paired change over {len(seeds)} seeds (below 0 is better): squared difference between "
        f"levels {equity}, smallest effect of interest {size:.2g}; overall KID {quality}"
    )
    worse = levelled_down(values, evidence.attributes, rule)
    if worse:
        reason += f"; a level may be worse by over {rule.levelling_down:.0%}: {', '.join(worse)}"
    good = not worse and not quality.low > 0
    clear = CONTRADICTED if equity.mean > 0 else SUPPORTED if good else INCONCLUSIVE
    return Finding(equity.p, clear, INCONCLUSIVE, reason, effect)


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

    Both are means over the study's classifiers, and the latter over the attributes.
    Both must, so the larger p is the endpoint's (intersection-union); against the claim speaks
    either, so there the smaller one counts twice.
    """
    seeds = common_seeds(evidence.downstream, "source", rule)
    table = single_seeds(evidence.downstream).rename(columns={"source": "method"})
    table = table[table["seeds"].astype(str).isin(seeds) & (table["level"] == "all")]
    table = table[table["condition"] == rule.condition]
    if table.empty:
        return few(seeds, rule)
    changes = {name: _gain(table, metric, rule) for metric, name in GAINS.items()}
    n = int(table["n"].max())
    effects = {name: _gain_effect(name, own, n, len(seeds), rule) for name, own in changes.items()}
    if len(seeds) < rule.least_seeds:
        return few(seeds, rule, effects["AUC"])
    text = ", ".join(f"{name} {change}" for name, change in changes.items())
    reason = (
        f"paired change over {len(seeds)} seeds (above 0 is better): {text}; "
        "no smallest effect of interest was declared for them"
    )
    against = {name: own.p for name, own in changes.items() if own.mean < 0 and np.isfinite(own.p)}
    if against:
        clearest = min(against, key=lambda name: against[name])
        p = min(1.0, 2 * against[clearest])
        return Finding(p, CONTRADICTED, INCONCLUSIVE, reason, effects[clearest])
    weakest = max(changes, key=lambda name: np.nan_to_num(changes[name].p, nan=np.inf))
    return Finding(changes[weakest].p, SUPPORTED, INCONCLUSIVE, reason, effects[weakest])


def _gain(table: pd.DataFrame, metric: str, rule: Protocol) -> Change:
    wide = _by_method(table[table["metric"] == metric], ["seeds"])
    return Change.of(wide[rule.method] - wide[rule.baseline], rule.confidence)


def _gain_effect(name: str, gain: Change, n: int, seeds: int, rule: Protocol) -> Effect:
    what = (
        f"change in the {name} for {name_of(rule.condition).lower()} of classifiers trained on "
        f"{method_name(rule.method)}'s in place of {method_name(rule.baseline)}'s images"
    )
    return gain.effect(what, name, n, seeds, float("nan"))


def judge_elsewhere(evidence: Evidence, quality: Finding, downstream: Finding) -> Finding:
    """C4: C2 and C3 on a dataset other than FairGenMed; both must hold, as in C3."""
    if dataset_of(evidence.dataset).simulated:
        return Finding.fixed(NOT_TESTABLE, "it needs real data other than FairGenMed")
    if not dataset_of(evidence.dataset).elsewhere:
        return Finding.fixed(NOT_TESTABLE, "it is judged on data other than FairGenMed")
    parts = [quality, downstream]
    reason = f"both endpoints together: p of C2 {quality.p:.2g}, of C3 {downstream.p:.2g}"
    untested = [name for name, part in zip(("C2", "C3"), parts, strict=True) if np.isnan(part.p)]
    if untested:
        reason = f"needs C2 and C3, of which {' and '.join(untested)} could not be tested"
    against = [part for part in parts if part.if_clear == CONTRADICTED and np.isfinite(part.p)]
    if against:
        worst = min(against, key=lambda part: part.p)
        p = min(1.0, 2 * worst.p)
        return Finding(p, CONTRADICTED, INCONCLUSIVE, reason, worst.effect)
    if untested:
        effect = next(part.effect for part in parts if np.isnan(part.p))
        return Finding.fixed(INCONCLUSIVE, reason, replace(effect, mde=float("nan")))
    both = all(part.if_clear == SUPPORTED for part in parts)
    weakest = max(parts, key=lambda part: part.p)
    clear = SUPPORTED if both else INCONCLUSIVE
    return Finding(weakest.p, clear, INCONCLUSIVE, reason, weakest.effect)
