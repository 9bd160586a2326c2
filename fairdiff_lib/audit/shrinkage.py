"""Empirical-Bayes shrinkage: values of many small groups, drawn towards their common mean.

Of a dozen intersections the most extreme raw value is mostly noise. Model: x_g ~ N(m_g, V_g),
m_g ~ N(mu, tau^2), with tau^2 after Paule and Mandel (1982), as statsmodels has it. The value
shown is the posterior mean; both it and its interval allow for tau^2 being an estimate (Morris
1983, JASA 78:47-55).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from fairdiff_lib.audit.audit import Audit
from fairdiff_lib.audit.estimate import Floats, Levels
from fairdiff_lib.settings.errors import InputError

LEAST_GROUPS = 4  # fewer say too little about their spread
SHRUNK_NOTE = "shrunken towards the mean of all intersections (empirical Bayes)"


@dataclass(frozen=True)
class Shrunken:
    """Posterior of every group's true value, [G].

    NaN where the group has no estimate, and everywhere below ``LEAST_GROUPS`` groups. ``mean`` is
    mu, weighted by 1 / (V_g + tau^2); ``between`` is tau^2.
    """

    value: Floats
    low: Floats
    high: Floats
    mean: float
    between: float


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
    return table.assign(**{name: cells}), {
        name: [", ".join(c) for c in product(*attributes.values())]
    }


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
