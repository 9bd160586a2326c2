"""The audit: one object for any metric, from a metric's estimates by group.

An estimator turns :class:`estimate.Groups` into one :class:`estimate.Estimate` per group;
intervals, contrasts against the largest level, tests and equity summaries follow from those
alone, whatever the metric is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from fairdiff_lib.audit.contrasts import (
    EXPLORATORY,
    GROUP_COLUMNS,
    Design,
    chance_gap,
    contrast_rows,
    control_discoveries,
    disparity,
    equity_rows,
    omnibus_rows,
    worst_interval,
)
from fairdiff_lib.audit.estimate import (
    OVERALL,
    Bools,
    Estimate,
    Floats,
    Groups,
    Ints,
    Levels,
    difference,
    group_units,
    mean_estimate,
)
from fairdiff_lib.audit.estimators import jackknife_units, macro_auc, mean_of_rows
from fairdiff_lib.audit.kid import Kernel, as_features, kid
from fairdiff_lib.settings.errors import InputError, refuse_unknown

Estimator = Callable[[Groups], list[Estimate]]
Key = tuple[str, str]
Row = dict[str, Any]
LEAST_GROUPS = 4  # fewer say too little about their spread
SHRUNK_NOTE = "shrunken towards the mean of all intersections (empirical Bayes)"


def each_group(one: Callable[[Ints, Bools], Estimate]) -> Estimator:
    """Estimator from a function of the images' units [N] and of a group's members, bool [U]."""
    return lambda groups: [one(groups.unit, member) for member in groups.members.T]


def kid_metric(kernel: Kernel, real: ArrayLike, generated: ArrayLike) -> Estimator:
    """KID of features [N, D] against each group's own reals."""
    return partial(kid, kernel, real, generated)


def mean_metric(values: Floats, bounded: bool = False) -> Estimator:
    """Mean of a value per image [N]: accuracy (``bounded``), a denoising loss, a rate."""
    return each_group(lambda unit, member: mean_of_rows(values, unit, member, bounded))


def auc_metric(truth: Ints, scores: Floats) -> Estimator:
    """AUC of class indices [N] and scores [N, K] (finite, or InputError); macro for K > 2."""
    scores = as_features(scores, "scores", len(truth))
    return each_group(partial(macro_auc, truth, scores))


def rows_metric(function: Callable[[Ints], float]) -> Estimator:
    """Any function of image row indices, by the jackknife over units (one call per unit)."""
    return each_group(partial(jackknife_units, function))


@dataclass(frozen=True)
class Audit:
    """What is known about one metric, overall and by group.

    ``estimates`` holds every group of (attribute, level), also what can't be estimated, as NaN with
    n and the reason; ``features`` names the feature space, where the metric rests on one.
    """

    metric: str
    estimates: dict[Key, Estimate]
    design: Design
    features: str = ""

    @property
    def attributes(self) -> Levels:
        """Attribute to level names: those that contrasts are made for."""
        return self.design.attributes

    @property
    def overall(self) -> Estimate:
        """The estimate over all units."""
        return self.estimates[OVERALL]

    @property
    def n(self) -> dict[Key, int]:
        """Units of each group."""
        return {key: estimate.n for key, estimate in self.estimates.items()}

    @cached_property
    def by_group(self) -> pd.DataFrame:
        """attribute, level, metric, n, value, low, high, note; the first row is overall."""
        rows = [
            (*key, self.metric, e.n, e.value, *e.interval(self.design.confidence), e.note)
            for key, e in self.estimates.items()
        ]
        return pd.DataFrame(rows, columns=list(GROUP_COLUMNS))

    @cached_property
    def contrasts(self) -> pd.DataFrame:
        """Signed differences from the largest level: see :func:`contrasts.contrast_rows`."""
        return contrast_rows(self.estimates, self.design, self.metric, self.features)

    @cached_property
    def omnibus(self) -> pd.DataFrame:
        """Largest minus smallest level of each attribute, with the test that all are equal."""
        return omnibus_rows(self.estimates, self.design, self.metric, self.features)

    @cached_property
    def disparity(self) -> pd.DataFrame:
        """Mean squared difference between levels, less its sampling variance, by attribute.

        In the columns of ``by_group``; metric ``<metric>_disparity``, level "all".
        """
        rows = []
        for name in self.attributes:
            value, n, note = disparity(self.estimates, self.design, name)
            metric = f"{self.metric}_disparity"
            rows.append((name, "all", metric, n, value, np.nan, np.nan, note))
        return pd.DataFrame(rows, columns=list(GROUP_COLUMNS))

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Equity-scaled value, gap, ratio, worst level, PSD and disparity, by attribute.

        The gap's note carries the p of its test (:attr:`omnibus`); see :func:`equity_rows`.
        """
        rows = equity_rows(self.by_group, self.attributes, {self.metric: self.design.better})
        p = self.omnibus.set_index("attribute")["p"]
        tested = (rows["metric"] == f"{self.metric}_gap") & np.isfinite(rows["value"])
        notes = [
            f"{note}; p = {p[name]:.2g}" if yes and np.isfinite(p[name]) else note
            for note, name, yes in zip(rows["note"], rows["attribute"], tested, strict=True)
        ]
        return pd.concat([rows.assign(note=notes), self.disparity], ignore_index=True)

    def with_smallest_effect(self, size: float) -> Audit:
        """The audit with another smallest difference of interest; NaN unless it is positive."""
        size = size if size > 0 else float("nan")
        return replace(self, design=replace(self.design, smallest_effect=size))

    def with_role(self, role: str) -> Audit:
        """The audit as a primary endpoint, or in the role that all its contrasts have."""
        return replace(self, design=replace(self.design, role=role))


def audit(
    estimator: Estimator,
    groups: Groups,
    attributes: Levels,
    *,
    metric: str,
    better: str = "low",
    confidence: float = 0.95,
    secondary_below: int = 80,
    role: str = "primary",
    features: str = "",
    seed: int = 0,
) -> Audit:
    """Audit any metric.

    Parameters
    ----------
    estimator : callable
        Groups to one estimate per group, as :func:`kid_metric` makes.
    groups : Groups
        From :func:`estimate.group_units`, with at least the attributes' levels.
    attributes, better, confidence, secondary_below, role, seed
        As in :class:`contrasts.Design`.

    Raises
    ------
    InputError
        No attribute, or one with fewer than two levels that have a unit, or that ``groups`` lacks.
    """
    refuse_unknown("direction", better, ("high", "low"))
    if not attributes:
        raise InputError(f"audit of {metric}: no attribute to compare levels of")
    for name, levels in attributes.items():
        if len(levels) < 2:
            raise InputError(f"audit of {metric}: {name} has fewer than two levels")
        for level in levels:
            if (name, level) not in groups.keys:
                raise InputError(f"audit of {metric}: the groups lack {name} {level!r}")
        if sum(groups.column(name, level).any() for level in levels) < 2:
            raise InputError(f"audit of {metric}: fewer than two levels of {name} have a subject")
    found = dict(zip(groups.keys, estimator(groups), strict=True))
    design = Design(attributes, better, confidence, secondary_below, role, seed=seed)
    return Audit(metric, found, design, features)


def exploratory_audits(
    metrics: Mapping[str, Estimator],
    groups: Groups,
    attributes: Levels,
    low: Collection[str] = (),
    **options: Any,  # of `audit`
) -> dict[str, Audit]:
    """Audit of every metric, by name; those in ``low`` are better when low."""
    return {
        name: audit(
            estimator,
            groups,
            attributes,
            metric=name,
            better="low" if name in low else "high",
            role=EXPLORATORY,
            **options,
        )
        for name, estimator in metrics.items()
    }


def same_kind(audits: Sequence[Audit], what: str) -> Audit:
    """The first of several audits, which have to be of one metric and of the same groups."""
    if not audits:
        raise InputError(f"{what}: no audit; expected one or more")
    first = audits[0]
    for other in audits[1:]:
        if (other.metric, other.features) != (first.metric, first.features):
            raise InputError(f"{what}: they differ in metric or features")
        if list(other.estimates) != list(first.estimates):
            raise InputError(f"{what}: they differ in groups")
    return first


def mean_audit(audits: Sequence[Audit]) -> Audit:
    """The mean over several models, as those of several seeds, on the same units.

    Each group's estimate is the mean of the models' estimates, its influence values the mean of
    theirs. So the intervals and tests are about the mean of *these* models on new patients; the
    patients that the models share count once, as they must: combining the models' p-values would
    count them S times.
    """
    first = same_kind(audits, "mean of audits")
    found = {key: mean_estimate([one.estimates[key] for one in audits]) for key in first.estimates}
    return replace(first, estimates=found)


Labelled = Sequence[tuple[Mapping[str, Any], Audit]]


def means_over_seeds(audits: Labelled) -> list[tuple[dict[str, Any], Audit]]:
    """:func:`mean_audit` of each set of audits whose labels differ in ``seed`` only.

    ``seeds``, as "0,1,2", takes the place of ``seed`` in the labels.
    """
    groups: dict[tuple[Any, ...], list[tuple[Any, Audit]]] = {}
    for labels, one in audits:
        rest = tuple((name, value) for name, value in labels.items() if name != "seed")
        groups.setdefault((rest, one.metric, one.features), []).append((labels, one))
    found = []
    for own in groups.values():
        seeds = ",".join(str(labels["seed"]) for labels, _ in own)
        named = {("seeds" if k == "seed" else k): (seeds if k == "seed" else v)
                 for k, v in own[0][0].items()}  # fmt: skip
        found.append((named, mean_audit([one for _, one in own])))
    return found


def contrast_table(audits: Labelled) -> pd.DataFrame:
    """Contrasts of several labelled audits below each other, each followed by its omnibus tests.

    The labels, as {"dataset": ..., "method": ..., "seed": ...}, are the first columns; then
    ``contrasts.CONTRAST_COLUMNS``, value being level minus reference. The adjusted p of what is not
    primary controls the false discovery rate over all such rows of the same labels.
    """
    frames = [
        labelled(pd.concat([one.contrasts, one.omnibus], ignore_index=True), labels)
        for labels, one in audits
    ]
    table = pd.concat(frames, ignore_index=True)
    names = list(audits[0][0])
    runs = table.groupby(names, sort=False, dropna=False)
    parts = [control_discoveries(run) for _, run in runs]
    joined: pd.DataFrame = pd.concat(parts).sort_index()
    return joined


def labelled(frame: pd.DataFrame, labels: Mapping[str, Any]) -> pd.DataFrame:
    """The frame with constant columns before its own."""
    return frame.assign(**labels)[[*labels, *(c for c in frame.columns if c not in labels)]]


def kid_audit(
    kernel: Kernel,
    real: ArrayLike,
    generated: ArrayLike,
    table: pd.DataFrame,
    attributes: Levels,
    **options: Any,  # of `audit`
) -> Audit:
    """Audit of the primary metric: KID of each group against its own reals.

    Of features [N, D] of the test images and of those generated for their prompts; ``table`` has
    their subject and a column of level names per attribute. No difference is too small to be of
    interest before :meth:`Audit.with_smallest_effect` has said which.
    """
    metric, groups = kid_metric(kernel, real, generated), group_units(table, attributes)
    return audit(metric, groups, attributes, metric="kid", **options)


def differences(first: Audit, second: Audit) -> dict[Key, Estimate]:
    """Paired difference of two models by group, first minus second, with influence values."""
    if first.metric != second.metric or list(first.estimates) != list(second.estimates):
        raise InputError("differences of two models: the audits differ in metric or groups")
    return {key: difference(own, second.estimates[key]) for key, own in first.estimates.items()}


def worst_rows(one: Audit, by_chance: bool = True) -> pd.DataFrame:
    """Gap between the levels of every attribute, what chance alone gives, and the worst level.

    Metrics ``<metric>_gap`` and ``<metric>_gap_by_chance`` (level "all"), and ``<metric>_worst`` at
    its level with :func:`contrasts.worst_interval`. ``by_chance`` holds for means over subjects,
    whose gap without any disparity is known.
    """
    summary = equity_rows(one.by_group, one.attributes, {one.metric: one.design.better})
    rows: list[Row] = []
    for record in summary.to_dict("records"):
        row = {str(name): value for name, value in record.items()}
        if row["metric"] == f"{one.metric}_gap":
            rows += [row, *([_by_chance(one, row)] if by_chance else [])]
        elif row["metric"] == f"{one.metric}_worst":
            rows.append(_with_interval(one, row))
    return pd.DataFrame(rows, columns=list(GROUP_COLUMNS))


def _known(one: Audit, attribute: str) -> list[Estimate]:
    levels = [one.estimates[attribute, level] for level in one.attributes[attribute]]
    return [level for level in levels if np.isfinite(level.value)]


def _by_chance(one: Audit, gap: Row) -> Row:
    share, name = one.design.confidence, f"{gap['metric']}_by_chance"
    if not np.isfinite(gap["value"]) or not one.overall.standard_error > 0:
        note = "not estimable: no gap or no spread"
        return {**gap, "metric": name, "value": np.nan, "note": note}
    most = chance_gap(one.overall, _known(one, gap["attribute"]), share, one.design.seed)
    note = f"{share:.0%} of cohorts with equal levels of these sizes have a smaller gap"
    return {**gap, "metric": name, "value": most, "note": note}


def _with_interval(one: Audit, worst: Row) -> Row:
    """The worst level's row with its interval; as it was where there is no worst level."""
    levels = _known(one, worst["attribute"])
    if not np.isfinite(worst["value"]):
        return worst
    chosen = one.estimates[worst["attribute"], worst["level"]]
    low, high = worst_interval(chosen, levels, one.design.confidence)
    left_out = [part for part in worst["note"].split("; ") if part.startswith("without ")]
    note = f"picked as the worst of {len(levels)} levels, so too bad on average; "
    note += f"the interval covers all {len(levels)} at once"
    parts = [note, *left_out, chosen.note]
    return {**worst, "low": low, "high": high, "note": "; ".join(part for part in parts if part)}


# -- intersections of attributes -------------------------------------------------------------
# Of a dozen intersections the most extreme raw value is mostly noise. Empirical Bayes draws the
# values of many small groups towards their common mean: x_g ~ N(m_g, V_g), m_g ~ N(mu, tau^2), with
# tau^2 after Paule and Mandel (1982), as statsmodels has it. The value shown is the posterior mean;
# both it and its interval allow for tau^2 being an estimate (Morris 1983, JASA 78:47-55).


@dataclass(frozen=True)
class Shrunken:
    """Posterior of every group's true value; NaN without an estimate, or for too few groups."""

    value: Floats  # [G]
    low: Floats
    high: Floats
    mean: float  # mu, weighted by 1 / (V_g + tau^2)
    between: float  # tau^2


def shrink(values: ArrayLike, variances: ArrayLike, confidence: float = 0.95) -> Shrunken:
    """Shrink group estimates [G] with their variances towards their mean; NaN is left out.

    With k groups, c = (k - 3) / (k - 1), B_g = c V_g / (V_g + tau^2) and W_g = 1 / (V_g + tau^2):
    the value is (1 - B_g) x_g + B_g mu, its variance V_g (1 - (1 - W_g / sum W) B_g) + 2 / (k - 3)
    B_g^2 (x_g - mu)^2. The factor c and the last term are the price of not knowing tau^2; without
    them, k equal values would seem known without error.
    """
    x, v = np.asarray(values, dtype=np.float64), np.asarray(variances, dtype=np.float64)
    known = np.isfinite(x)
    if not (v[known] > 0).all():
        raise InputError("shrinkage: a group has a value but no positive variance")
    blank, k = np.full(len(x), np.nan), int(known.sum())
    if k < LEAST_GROUPS:
        return Shrunken(blank, blank.copy(), blank.copy(), float("nan"), float("nan"))
    own, error = x[known], v[known]
    between = float(combine_effects(own, error, method_re="iterated").tau2)
    weight = 1 / (error + between)
    mean = float(np.average(own, weights=weight))
    pull = (k - 3) / (k - 1) * error * weight  # B_g
    centre = (1 - pull) * own + pull * mean
    variance = error * (1 - (1 - weight / weight.sum()) * pull)
    variance += 2 / (k - 3) * pull**2 * (own - mean) ** 2
    reach = stats.norm.ppf((1 + confidence) / 2) * np.sqrt(variance)
    value, low, high = blank, blank.copy(), blank.copy()
    value[known], low[known], high[known] = centre, centre - reach, centre + reach
    return Shrunken(value, low, high, mean, between)


def crossed(table: pd.DataFrame, attributes: Levels) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """The table with a column for the crossing of all attributes, and that column's levels.

    The column is named such as "race x sex", its cells such as "Black, Female"; levels are every
    combination, also those that nobody has.
    """
    name = " x ".join(attributes)
    cells = table[list(attributes)].agg(", ".join, axis=1)
    levels = [", ".join(cell) for cell in product(*attributes.values())]
    return table.assign(**{name: cells}), {name: levels}


def intersection_rows(one: Audit, name: str) -> pd.DataFrame:
    """Raw and shrunken estimates of the groups of a crossing, named as :func:`crossed` does.

    Metric: the audit's, and with "_shrunk". Groups that are too small stay, as NaN with the reason.
    """
    table = one.by_group
    raw = table[table["attribute"] == name].reset_index(drop=True)
    estimates = [one.estimates[name, level] for level in raw["level"]]
    variances = [estimate.standard_error**2 for estimate in estimates]
    values = [e.value if e.standard_error > 0 else np.nan for e in estimates]
    found = shrink(values, variances, one.design.confidence)
    few = np.isnan(found.mean)
    reason = f"not estimable: fewer than {LEAST_GROUPS} groups with a value" if few else SHRUNK_NOTE
    shrunken = raw.assign(
        metric=f"{one.metric}_shrunk",
        value=found.value,
        low=found.low,
        high=found.high,
        note=[own or reason for own in raw["note"]],
    )
    both = pd.concat([raw, shrunken], ignore_index=True)
    both.insert(3, "features", one.features)
    return both
