"""Equity summaries of any metric by group: equity-scaled value, gap, ratio, worst level, PSD.

Rows of tidy tables in, rows of the same tables out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.audit.contrasts import GAP_NOTE
from fairdiff_lib.audit.estimate import OVERALL, Levels
from fairdiff_lib.audit.parity import equity_scaled, psd

Key = tuple[str, str]
GROUP_COLUMNS = ("attribute", "level", "metric", "n", "value", "low", "high", "note")
DIRECTIONS = {  # of the metrics that equity summaries are made for
    "kid": "low", "kid_standardised": "low", "fid": "low", "mifid": "low",
    "denoising_loss": "low", "auc": "high", "accuracy": "high",
}  # fmt: skip


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
