"""Who is worst off, said so that having been picked as the worst doesn't mislead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.audit.audit import Audit
from fairdiff_lib.audit.equity import GROUP_COLUMNS, equity_rows
from fairdiff_lib.audit.estimate import Estimate
from fairdiff_lib.audit.reliability import chance_gap

Row = dict[str, Any]


def worst_rows(one: Audit, by_chance: bool = True) -> pd.DataFrame:
    """Gap between the levels of every attribute, what chance alone gives, and the worst level.

    Parameters
    ----------
    one : Audit
    by_chance : bool
        Whether the metric is a mean over subjects, so that its gap without any disparity is
        known: see :func:`reliability.chance_gap`.

    Returns
    -------
    DataFrame
        ``equity.GROUP_COLUMNS``; metrics ``<metric>_gap`` and ``<metric>_gap_by_chance`` (level
        "all"), and ``<metric>_worst`` at its level, with an interval as :func:`worst_interval`.
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


def worst_interval(
    chosen: Estimate, levels: Sequence[Estimate], confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of a level that was chosen by looking at all of them.

    Each level's interval at 1 - (1 - confidence) / G (Bonferroni): together they cover all G
    levels with at least ``confidence``, so the one that is picked is covered whatever the rule
    of picking (Benjamini, Hechtlinger and Stark 2019, "Confidence intervals for selected
    parameters"). The value itself stays too bad on average: the worst of several is partly
    bad luck.

    Parameters
    ----------
    chosen : Estimate
    levels : sequence of Estimate
        All that could have been chosen.
    confidence : float
    """
    return chosen.interval(1 - (1 - confidence) / max(len(levels), 1))


def _known(one: Audit, attribute: str) -> list[Estimate]:
    levels = [one.estimates[attribute, level] for level in one.attributes[attribute]]
    return [level for level in levels if np.isfinite(level.value)]


def _by_chance(one: Audit, gap: Row) -> Row:
    share, name = one.design.confidence, f"{gap['metric']}_by_chance"
    if not np.isfinite(gap["value"]) or not one.overall.standard_error > 0:
        return {
            **gap,
            "metric": name,
            "value": np.nan,
            "note": "not estimable: no gap or no spread",
        }
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
