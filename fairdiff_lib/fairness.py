"""The audit: one object for any metric, from a metric's estimates by group.

An estimator turns :class:`inference.Groups` into one :class:`inference.Estimate` per group;
intervals, contrasts against the largest level, tests and equity summaries follow from those
alone, whatever the metric is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from statsmodels.stats.multitest import multipletests

from fairdiff_lib.config import InputError, refuse_unknown
from fairdiff_lib.estimators import jackknife_units, macro_auc, mean_of_rows
from fairdiff_lib.inference import (
    OVERALL,
    Estimate,
    Floats,
    Groups,
    Ints,
    Levels,
    difference,
    group_units,
    max_t,
)
from fairdiff_lib.kernels import Kernel, kid
from fairdiff_lib.parity import equity_scaled, psd

Estimator = Callable[[Groups], list[Estimate]]
Key = tuple[str, str]
CONTRAST_COLUMNS = (
    "attribute", "level", "reference", "metric", "n", "n_reference",
    "value", "low", "high", "p", "p_adjusted", "role", "note",
)  # fmt: skip
GROUP_COLUMNS = ("attribute", "level", "metric", "n", "value", "low", "high", "note")
DIRECTIONS = {  # of the metrics that equity summaries are made for
    "kid": "low", "fid": "low", "mifid": "low", "denoising_loss": "low",
    "auc": "high", "accuracy": "high",
}  # fmt: skip
SECONDARY_NOTE = "secondary: p_adjusted controls the false discovery rate only"
MODEL_NOTE = "two trained models, interval over subjects; methods need several seeds"
GAP_NOTE = "description only: positive even without disparity; tests are in the contrasts"


def kid_metric(kernel: Kernel, real: ArrayLike, generated: ArrayLike) -> Estimator:
    """KID of features [N, D] against each group's own reals."""
    return partial(kid, kernel, real, generated)


def mean_metric(values: Floats, bounded: bool = False) -> Estimator:
    """Mean of a value per image [N]: accuracy (``bounded``), a denoising loss, a rate."""
    return lambda groups: [
        mean_of_rows(values, groups.unit, member, bounded) for member in groups.members.T
    ]


def auc_metric(truth: Ints, scores: Floats) -> Estimator:
    """AUC of class indices [N] and scores [N, K]; macro one-against-rest for K > 2."""
    return lambda groups: [
        macro_auc(truth, scores, groups.unit, member) for member in groups.members.T
    ]


def rows_metric(function: Callable[[Ints], float]) -> Estimator:
    """Any function of image row indices, by the jackknife over units (one call per unit)."""
    return lambda groups: [
        jackknife_units(function, groups.unit, member) for member in groups.members.T
    ]


@dataclass(frozen=True)
class Audit:
    """What is known about one metric, overall and by group.

    Attributes
    ----------
    metric : str
    better : str
        ``"high"`` or ``"low"``.
    attributes : mapping
        Attribute to level names: those that contrasts are made for.
    estimates : dict of (attribute, level) to Estimate
        A group that cannot be estimated stays, as NaN with n and the reason.
    confidence : float
        Of each interval by itself; the family is kept by ``p_adjusted``.
    secondary_below : int
        Levels with fewer units are secondary.
    declared : bool
        False where the metric is no primary endpoint: all its contrasts are secondary.
    seed : int
        Of the Monte Carlo behind the adjusted p.
    """

    metric: str
    better: str
    attributes: Levels
    estimates: dict[Key, Estimate]
    confidence: float = 0.95
    secondary_below: int = 80
    declared: bool = True
    seed: int = 0

    @property
    def overall(self) -> Estimate:
        """The estimate over all units."""
        return self.estimates[OVERALL]

    @cached_property
    def by_group(self) -> pd.DataFrame:
        """attribute, level, metric, n, value, low, high, note; the first row is overall."""
        rows = [
            (*key, self.metric, e.n, e.value, *e.interval(self.confidence), e.note)
            for key, e in self.estimates.items()
        ]
        return pd.DataFrame(rows, columns=list(GROUP_COLUMNS))

    @cached_property
    def contrasts(self) -> pd.DataFrame:
        """Signed differences from the largest level, in ``CONTRAST_COLUMNS``.

        Adjusted p: max-|t| over the primary contrasts of all attributes, false discovery
        rate for the secondary ones.
        """
        found = self.estimates
        pairs = [p for name, levels in self.attributes.items() for p in _pairs(found, name, levels)]
        gaps = [difference(found[key], found[reference]) for key, reference in pairs]
        rows = [
            (*key, reference[1], self.metric, found[key].n, found[reference].n, gap.value,
             *gap.interval(self.confidence), gap.p_value(), gap.note)
            for (key, reference), gap in zip(pairs, gaps, strict=True)
        ]  # fmt: skip
        columns = [c for c in CONTRAST_COLUMNS if c not in ("p_adjusted", "role")]
        table = pd.DataFrame(rows, columns=columns)
        smaller = table[["n", "n_reference"]].min(axis=1)
        primary = (smaller >= self.secondary_below).to_numpy(dtype=bool) & self.declared
        return _adjusted(table, gaps, primary, self.seed)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Equity-scaled value, gap, ratio, worst level and PSD: see :func:`equity_rows`."""
        return equity_rows(self.by_group, self.attributes, {self.metric: self.better})


def audit(
    estimator: Estimator,
    groups: Groups,
    attributes: Levels,
    *,
    metric: str,
    better: str = "low",
    confidence: float = 0.95,
    secondary_below: int = 80,
    declared: bool = True,
    seed: int = 0,
) -> Audit:
    """Audit any metric.

    Parameters
    ----------
    estimator : callable
        Groups to one estimate per group, as :func:`kid_metric` makes.
    groups : Groups
        From :func:`inference.group_units`, with at least the attributes' levels.
    attributes, metric, better, confidence, secondary_below, declared, seed
        As in :class:`Audit`.

    Raises
    ------
    InputError
        An attribute with fewer than two levels, or with one that ``groups`` lacks.
    """
    refuse_unknown("direction", better, ("high", "low"))
    for name, levels in attributes.items():
        if len(levels) < 2:
            raise InputError(f"audit of {metric}: {name} has fewer than two levels")
        for level in levels:
            if (name, level) not in groups.keys:
                raise InputError(f"audit of {metric}: the groups lack {name} {level!r}")
    found = dict(zip(groups.keys, estimator(groups), strict=True))
    return Audit(metric, better, attributes, found, confidence, secondary_below, declared, seed)


def _pairs(found: Mapping[Key, Estimate], name: str, levels: Sequence[str]) -> list[Any]:
    """Each level of an attribute with the largest one."""
    keys = [(name, level) for level in levels]
    reference = max(keys, key=lambda key: found[key].n)  # the first of equals
    return [(key, reference) for key in keys if key != reference]


def _adjusted(
    contrasts: pd.DataFrame, gaps: Sequence[Estimate], primary: NDArray[np.bool_], seed: int
) -> pd.DataFrame:
    """Roles and adjusted p: max-|t| over the primary ones, false discovery rate for the rest."""
    adjusted = np.full(len(contrasts), np.nan)
    adjusted[primary] = max_t([gap for gap, yes in zip(gaps, primary, strict=True) if yes], seed)
    raw = contrasts["p"].to_numpy(dtype=np.float64)
    rest = ~primary & np.isfinite(raw)
    if rest.any():
        adjusted[rest] = multipletests(raw[rest], method="fdr_bh")[1]
    notes = [
        "; ".join(part for part in (note, SECONDARY_NOTE if other else "") if part)
        for note, other in zip(contrasts["note"], rest, strict=True)
    ]
    roles = np.where(primary, "primary", "secondary")
    return contrasts.assign(p_adjusted=adjusted, role=roles, note=notes)[list(CONTRAST_COLUMNS)]


def contrast_table(audits: Sequence[tuple[Mapping[str, Any], Audit]]) -> pd.DataFrame:
    """Contrasts of several audits below each other.

    Parameters
    ----------
    audits : sequence of (labels, Audit)
        Labels as {"dataset": ..., "method": ..., "seed": ...}: the first columns.

    Returns
    -------
    DataFrame
        The labels, then attribute, level, reference, metric, n, n_reference, value (level
        minus reference), low, high, p, p_adjusted (within one audit), role, note.
    """
    frames = [labelled(one.contrasts, labels) for labels, one in audits]
    return pd.concat(frames, ignore_index=True)


def labelled(frame: pd.DataFrame, labels: Mapping[str, Any]) -> pd.DataFrame:
    """The frame with constant columns before its own."""
    return frame.assign(**labels)[[*labels, *(c for c in frame.columns if c not in labels)]]


def equity_rows(
    table: pd.DataFrame, attributes: Levels, directions: Mapping[str, str] = DIRECTIONS
) -> pd.DataFrame:
    """Equity summaries of every metric of a tidy table, in the columns of that table.

    For metric M and attribute A: ``es_M`` (equity-scaled), ``M_gap`` (largest minus
    smallest), ``M_ratio`` (worst over best), ``M_psd_mean``, ``M_psd_max`` with level
    ``all``, and ``M_worst`` with the worst level's name and value. Levels that cannot be
    estimated are left out and named in the note. No intervals: see the contrasts.

    Parameters
    ----------
    table : DataFrame
        attribute, level, metric, n, value, note and any labels (dataset, method, seed ...).
    attributes : mapping
    directions : mapping
        Metric to ``"high"`` or ``"low"``; others have no summary.
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


def kid_audit(
    kernel: Kernel,
    real: ArrayLike,
    generated: ArrayLike,
    table: pd.DataFrame,
    attributes: Levels,
    *,
    unit: str = "subject",
    confidence: float = 0.95,
    secondary_below: int = 80,
    seed: int = 0,
) -> Audit:
    """Audit of the primary metric: KID of each group against its own reals.

    Parameters
    ----------
    kernel : Kernel
    real, generated : [N, D]
        Features of the test images and of the images generated for their prompts.
    table : DataFrame [N]
        A row per image: ``unit`` and a column of level names per attribute.
    attributes : mapping
    """
    return audit(
        kid_metric(kernel, real, generated),
        group_units(table, attributes, unit),
        attributes,
        metric="kid",
        confidence=confidence,
        secondary_below=secondary_below,
        seed=seed,
    )


def method_difference(first: Audit, second: Audit, confidence: float = 0.95) -> pd.DataFrame:
    """One trained model against another on the same subjects, by group: first minus second.

    Paired: the variance knows the subjects and reals that both share. It speaks of these
    two models, not of the methods that trained them; that needs several seeds.

    Returns
    -------
    DataFrame
        attribute, level, metric, n, value, low, high, p, note.
    """
    if first.metric != second.metric or list(first.estimates) != list(second.estimates):
        raise InputError("method_difference: the audits differ in metric or groups")
    rows = []
    for (attribute, level), own in first.estimates.items():
        gap = difference(own, second.estimates[(attribute, level)])
        low, high = gap.interval(confidence)
        note = "; ".join(part for part in (gap.note, MODEL_NOTE) if part)
        rows.append((attribute, level, first.metric, own.n, gap.value, low, high,
                     gap.p_value(), note))  # fmt: skip
    return pd.DataFrame(rows, columns=[*GROUP_COLUMNS[:-1], "p", "note"])
