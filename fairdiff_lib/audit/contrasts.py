"""From estimates by group to signed contrasts, their tests, and what they could have missed.

The reference is each attribute's largest level: chosen by size, never by outcome. A level that
does not differ visibly is "equivalent" only if a test says so (two one-sided tests against the
smallest effect of interest); otherwise the table says how large a difference could have been
missed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from fairdiff_lib.audit.estimate import (
    OVERALL,
    Bools,
    Estimate,
    Floats,
    Ints,
    Levels,
    difference,
    max_t,
)
from fairdiff_lib.settings.errors import refuse_unknown

Key = tuple[str, str]
Found = Mapping[Key, Estimate]
CONTRAST_COLUMNS = (
    "attribute", "level", "reference", "metric", "features", "n", "n_reference",
    "value", "low", "high", "p", "p_adjusted", "p_worse", "p_better",
    "smallest_effect", "p_equivalence", "mde", "mde_ratio", "role", "note",
)  # fmt: skip
PRIMARY, SECONDARY, DESCRIPTION = "primary", "secondary", "description"
EXPLORATORY, SENSITIVITY = "exploratory", "sensitivity"  # roles of whole audits
SPREAD = "max - min"  # stands as the level of an attribute's omnibus test
EXPLORATORY_NOTE = "exploratory: p_adjusted controls the false discovery rate only"
GAP_NOTE = "description with its test only: positive even without disparity"
DISPARITY_NOTE = "mean squared difference between levels, less its sampling variance"
GROUP_COLUMNS = ("attribute", "level", "metric", "n", "value", "low", "high", "note")
DIRECTIONS = {  # of the metrics that equity summaries are made for
    "kid": "low", "kid_standardised": "low", "fid": "low", "mifid": "low",
    "denoising_loss": "low", "auc": "high", "accuracy": "high",
}  # fmt: skip


@dataclass(frozen=True)
class Design:
    """What is compared with what, and which comparisons were declared beforehand."""

    attributes: Levels
    better: str = "low"  # or "high"
    confidence: float = 0.95  # of each interval by itself; the family is kept by p_adjusted
    secondary_below: int = 80  # levels with fewer units are secondary
    role: str = PRIMARY  # of a primary endpoint; any other holds for all contrasts of the audit
    smallest_effect: float = float("nan")  # of interest, in units of the metric; NaN: undeclared
    seed: int = 0  # of the Monte Carlo behind max-|t|


def pairs_with_largest(found: Found, attributes: Levels) -> list[tuple[Key, Key]]:
    """Each level of every attribute with the attribute's largest one (the first of equals)."""
    pairs = []
    for name, levels in attributes.items():
        keys = [(name, level) for level in levels]
        reference = max(keys, key=lambda key: found[key].n)
        pairs += [(key, reference) for key in keys if key != reference]
    return pairs


def contrast_rows(found: Found, design: Design, metric: str, features: str = "") -> pd.DataFrame:
    """Signed differences from the largest level, in ``CONTRAST_COLUMNS``.

    Adjusted p: max-|t| over the primary contrasts of all attributes; false discovery rate
    (Benjamini and Hochberg 1995) over the others.
    """
    pairs = pairs_with_largest(found, design.attributes)
    gaps = [difference(found[key], found[reference]) for key, reference in pairs]
    rows = [
        _row(found[key], found[reference], gap, design)
        | {"attribute": key[0], "level": key[1], "reference": reference[1]}
        for (key, reference), gap in zip(pairs, gaps, strict=True)
    ]
    table = pd.DataFrame(rows).assign(metric=metric, features=features)
    return _with_roles(table, gaps, design)[list(CONTRAST_COLUMNS)]


def _row(own: Estimate, reference: Estimate, gap: Estimate, design: Design) -> dict[str, Any]:
    """Numbers of one contrast."""
    low, high = gap.interval(design.confidence)
    missed = gap.detectable(design.confidence)
    worse = reference.value + (missed if design.better == "low" else -missed)
    above = gap.p_above()
    positive = reference.interval(design.confidence)[0] > 0  # a ratio to what may be 0 says nothing
    return {
        "n": own.n,
        "n_reference": reference.n,
        "value": gap.value,
        "low": low,
        "high": high,
        "p": gap.p_value(),
        "p_worse": above if design.better == "low" else 1 - above,  # of one side, not adjusted
        "p_better": 1 - above if design.better == "low" else above,
        "smallest_effect": design.smallest_effect,
        "p_equivalence": gap.p_equivalence(design.smallest_effect),
        "mde": missed,
        "mde_ratio": worse / reference.value if positive else float("nan"),
        "note": gap.note,
    }


def _with_roles(table: pd.DataFrame, gaps: Sequence[Estimate], design: Design) -> pd.DataFrame:
    """Role and adjusted p of every contrast."""
    declared = np.full(len(table), design.role == PRIMARY)
    large = (table[["n", "n_reference"]].min(axis=1) >= design.secondary_below).to_numpy()
    primary = declared & large
    roles = np.where(declared, np.where(large, PRIMARY, SECONDARY), design.role)
    adjusted = np.full(len(table), np.nan)
    chosen = [gap for gap, yes in zip(gaps, primary, strict=True) if yes]
    adjusted[primary] = max_t(chosen, design.seed)
    notes = [
        "; ".join(part for part in (note, "" if yes else EXPLORATORY_NOTE) if part)
        for note, yes in zip(table["note"], primary | ~np.isfinite(table["p"]), strict=True)
    ]
    table = table.assign(role=roles, p_adjusted=adjusted, note=notes)
    return control_discoveries(table)


def control_discoveries(table: pd.DataFrame) -> pd.DataFrame:
    """The table with adjusted p of all rows that are neither primary nor description.

    They are one family, whose false discovery rate is controlled (Benjamini and Hochberg); rows
    without a p stay without.
    """
    raw = table["p"].to_numpy(dtype=np.float64)
    rest = ~table["role"].isin([PRIMARY, DESCRIPTION]).to_numpy() & np.isfinite(raw)
    adjusted = table["p_adjusted"].to_numpy(dtype=np.float64, copy=True)
    if rest.any():
        adjusted[rest] = multipletests(raw[rest], method="fdr_bh")[1]
    return table.assign(p_adjusted=adjusted)


# -- all levels of an attribute at once ------------------------------------------------------


def _large_pairs(found: Found, name: str, design: Design) -> tuple[list[str], list[Estimate]]:
    """Levels large enough to be declared, and the differences of all their pairs."""
    usable = [
        level
        for level in design.attributes[name]
        if found[name, level].n >= design.secondary_below and np.isfinite(found[name, level].value)
    ]
    pairs = combinations([found[name, level] for level in usable], 2)
    return usable, [difference(first, second) for first, second in pairs]


def omnibus_rows(found: Found, design: Design, metric: str, features: str = "") -> pd.DataFrame:
    """Largest minus smallest level of every attribute, in ``CONTRAST_COLUMNS``.

    Its p is that of max-|t| over all pairs of levels: the test of "all levels are equal" whose
    statistic is the standardised range. It has no interval: the range is positive even where
    nothing differs. Levels below ``secondary_below`` are left out and named.
    """
    rows = []
    for name in design.attributes:
        usable, gaps = _large_pairs(found, name, design)
        left_out = [level for level in design.attributes[name] if level not in usable]
        notes = [GAP_NOTE] + [f"without {', '.join(left_out)} (too small)"] * bool(left_out)
        values = [found[name, level].value for level in usable]
        sizes = [found[name, level].n for level in usable]
        blank = dict.fromkeys(CONTRAST_COLUMNS, float("nan"))
        row = {**blank, "attribute": name, "level": SPREAD, "reference": "", "metric": metric,
               "features": features, "n": min(sizes, default=0),
               "n_reference": max(sizes, default=0), "role": DESCRIPTION}  # fmt: skip
        if len(usable) < 2:
            rows.append({**row, "note": "not estimable: fewer than two levels large enough"})
            continue
        adjusted = max_t(gaps, design.seed)
        p = float(np.nanmin(adjusted)) if np.isfinite(adjusted).any() else float("nan")
        spread = float(np.ptp(values))
        rows.append({**row, "value": spread, "p": p, "p_adjusted": p, "note": "; ".join(notes)})
    return pd.DataFrame(rows, columns=list(CONTRAST_COLUMNS))


def disparity(found: Found, design: Design, name: str) -> tuple[float, int, str]:
    """Mean over all pairs of levels of T^2 - V(T), T their difference: unbiased for its square.

    E[T^2] = true difference^2 + V(T), so a noisy estimate isn't taken for a disparity; the value
    may fall below 0. Levels below ``secondary_below`` stay out. Returns value, n, note.
    """
    usable, gaps = _large_pairs(found, name, design)
    known = [gap for gap in gaps if gap.standard_error > 0]
    if not known:
        return float("nan"), 0, "not estimable: fewer than two levels large enough"
    value = float(np.mean([gap.value**2 - gap.standard_error**2 for gap in known]))
    return value, sum(found[name, level].n for level in usable), DISPARITY_NOTE


def dpd(predicted: Ints, codes: Ints, classes: int) -> float:
    """Demographic parity difference: largest gap between groups in the rate of a prediction.

    Of class indices [N] and group codes [N]. Two classes: of the second; more: averaged, one
    against the rest.
    """
    return float(np.mean([_gap(predicted == k, codes) for k in one_against_rest(classes)]))


def eod(truth: Ints, predicted: Ints, codes: Ints, classes: int) -> float:
    """Equalised odds difference: the larger of the gaps in true and in false positive rate.

    Two classes: of the second. More: averaged over the classes, one against the rest. A group
    without a case (or without a non-case) is left out of that rate's gap, not counted as 0.
    NaN where fewer than two groups have a rate.
    """
    gaps = []
    for k in one_against_rest(classes):
        both = [_gap((predicted == k)[s], codes[s]) for s in (truth == k, truth != k)]
        gaps.append(max(both))
    return float(np.mean(gaps)) if np.isfinite(gaps).all() else float("nan")


def one_against_rest(classes: int) -> range:
    """Classes whose rates are compared: of two, the second alone."""
    return range(1, 2) if classes == 2 else range(classes)


def _gap(event: Bools, codes: Ints) -> float:
    """Largest minus smallest rate over the groups that are present; NaN with fewer than two."""
    counts = np.bincount(codes) if len(codes) else np.zeros(0, dtype=np.int64)
    present = counts > 0
    if present.sum() < 2:
        return float("nan")
    rates = np.bincount(codes, weights=event)[present] / counts[present]
    return float(np.ptp(rates))


def equity_scaled(overall: Floats, by_group: Floats, better: str) -> Floats:
    """Value [...] after a penalty for the summed distances of the groups [..., G] from it.

    ``better="high"``: M / (1 + sum_g |M_g - M|). ``"low"``: M (1 + sum_g |M_g - M| / M) = M + sum_g
    |M_g - M|, defined for M <= 0 as well. NaN groups are left out.
    """
    refuse_unknown("direction", better, ("high", "low"))
    away = np.nansum(np.abs(by_group - overall[..., None]), axis=-1)
    scaled = overall / (1 + away) if better == "high" else overall + away
    return np.asarray(scaled)


def psd(overall: float, by_group: Floats) -> tuple[float, float]:
    """Standard deviation over groups and range over groups, both relative to the overall value.

    NaN groups are left out (the released code enters -1); NaN where the overall value is not
    positive or fewer than two groups have a value.
    """
    known = by_group[np.isfinite(by_group)]
    if len(known) < 2 or not overall > 0:
        return float("nan"), float("nan")
    return float(known.std() / overall), float(np.ptp(known) / overall)


def equity_rows(
    table: pd.DataFrame, attributes: Levels, directions: Mapping[str, str] = DIRECTIONS
) -> pd.DataFrame:
    """Equity summaries of every metric of a tidy table, in the columns of that table.

    For metric M and attribute A: ``es_M`` (equity-scaled), ``M_gap`` (largest minus smallest),
    ``M_ratio`` (worst over best), ``M_psd_mean``, ``M_psd_max`` with level ``all``, and ``M_worst``
    at the worst level. Levels that can't be estimated are left out and named in the note. No
    intervals: see the contrasts. Metrics without a direction have no summary.
    """
    own = ("attribute", "level", "metric", "n", "value", "low", "high", "note")
    labels = [column for column in table.columns if column not in own]
    rows: list[dict[str, Any]] = []
    known = table[table["metric"].isin(list(directions))]
    for values, part in known.groupby([*labels, "metric"], sort=False, dropna=False):
        head: dict[str, Any] = dict(zip([*labels, "metric"], values, strict=True))
        by_level = part.set_index(["attribute", "level"])
        for name, levels in attributes.items():
            wanted = [(name, level) for level in levels if (name, level) in by_level.index]
            if wanted and OVERALL in by_level.index:
                found = _equity(by_level, wanted, head["metric"], directions[head["metric"]])
                rows += [{**head, "attribute": name, **row} for row in found]
    return pd.DataFrame(rows, columns=list(table.columns))


def _equity(
    by_level: pd.DataFrame, keys: Sequence[Key], metric: str, better: str
) -> list[dict[str, Any]]:
    """The summaries of one metric over one attribute's levels."""
    value = by_level["value"].astype(np.float64)
    overall, each = float(value.loc[OVERALL]), np.array(value.loc[list(keys)])
    n, usable = int(by_level["n"].loc[OVERALL]), np.isfinite(each)
    left_out = [level for (_, level), yes in zip(keys, usable, strict=True) if not yes]
    notes = [GAP_NOTE] + [f"without {', '.join(left_out)} (not estimable)"] * bool(left_out)
    blank = {"level": "all", "n": n, "low": np.nan, "high": np.nan, "note": "; ".join(notes)}
    if usable.sum() < 2 or not np.isfinite(overall):
        note = "not estimable: fewer than two levels with a value"
        names = (f"es_{metric}", f"{metric}_gap", f"{metric}_ratio", f"{metric}_worst",
                 f"{metric}_psd_mean", f"{metric}_psd_max")  # fmt: skip
        return [{**blank, "metric": name, "value": np.nan, "note": note} for name in names]
    worst = int(np.nanargmax(each) if better == "low" else np.nanargmin(each))
    best = float(np.nanmin(each) if better == "low" else np.nanmax(each))
    positive = bool(np.all(each[usable] > 0))
    mean, largest = psd(overall, each)
    scaled = float(equity_scaled(np.array(overall), each, better))
    numbers = {
        f"es_{metric}": scaled,
        f"{metric}_gap": float(np.ptp(each[usable])),
        f"{metric}_ratio": float(each[worst] / best) if positive else np.nan,
        f"{metric}_psd_mean": mean,
        f"{metric}_psd_max": largest,
    }
    rows = [{**blank, "metric": name, "value": number} for name, number in numbers.items()]
    at_worst = {"level": keys[worst][1], "n": int(by_level["n"].loc[keys[worst]])}
    return [*rows, {**blank, **at_worst, "metric": f"{metric}_worst", "value": each[worst]}]


def chance_gap(
    overall: Estimate,
    levels: Sequence[Estimate],
    confidence: float = 0.95,
    seed: int = 0,
    draws: int = 20_000,
) -> float:
    """Largest minus smallest mean that levels of these sizes stay below without any disparity.

    What a gap is to be read against, as it is positive even where all levels are equal: the spread
    of a subject is that of the overall mean, the levels differ in n alone. ``confidence`` is the
    share of cohorts.
    """
    spread = overall.standard_error * np.sqrt([overall.n / level.n for level in levels])
    drawn = np.random.default_rng(seed).standard_normal((draws, len(levels))) * spread
    return float(np.quantile(np.ptp(drawn, axis=1), confidence))


def worst_interval(
    chosen: Estimate, levels: Sequence[Estimate], confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of a level that was chosen by looking at all of them.

    Each level's interval at 1 - (1 - confidence) / G (Bonferroni): together they cover all G levels
    with at least ``confidence``, so the one that is picked is covered whatever the rule of picking
    (Benjamini, Hechtlinger and Stark 2019). The value itself stays too bad on average: the worst of
    several is partly bad luck.
    """
    return chosen.interval(1 - (1 - confidence) / max(len(levels), 1))
