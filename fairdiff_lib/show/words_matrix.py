"""What the downstream matrix says, in sentences made from its tables."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fairdiff_lib.audit.seeds import means_and_seeds
from fairdiff_lib.show.style import look_of, name_of, ordered_methods
from fairdiff_lib.show.words import number


def about_learning(table: pd.DataFrame, condition: str) -> str:
    """AUC of real images alone, share by share.

    Parameters
    ----------
    table : DataFrame
        As ``matrix_study.MatrixResult.table``.
    condition : str
    """
    rows = _overall(table, condition)
    own, _ = means_and_seeds(rows[rows["method"] == "real"], ["method", "share"])
    values = [
        f"{100 * row['share']:g}% of the subjects {number(row)}"
        for _, row in own.sort_values("share").iterrows()
    ]
    return f"AUC for {name_of(condition).lower()}, real images alone: {'; '.join(values)}."


def about_arms(changes: pd.DataFrame, condition: str) -> str:
    """A Markdown list: every arm against real images, overall.

    Parameters
    ----------
    changes : DataFrame
        As ``matrix_study.MatrixResult.changes``.
    condition : str
    """
    rows = _overall(changes, condition)
    lines = []
    for arm in ordered_methods(rows["method"]):
        own = rows[rows["method"] == arm].sort_values("share")
        said = "; ".join(_change(row) for _, row in own.iterrows())
        lines.append(f"- {look_of(arm).label}, AUC minus that of real images alone: {said}.")
    return "\n".join([*lines, "", _basis(rows)])


def about_balance(changes: pd.DataFrame, condition: str, attribute: str) -> str:
    """A Markdown list: what balanced images change for each level of the attribute."""
    rows = changes[(changes["condition"] == condition) & (changes["metric"] == "auc")]
    rows = rows[(rows["attribute"] == attribute) & rows["method"].str.contains("balanced")]
    lines = []
    for level, own in rows.groupby("level", sort=False):
        parts = [f"{look_of(row['method']).label} {_change(row)}" for _, row in own.iterrows()]
        lines.append(f"- {level} (n = {own['n'].min()}): {'; '.join(parts)}")
    return "\n".join(lines)


def about_transfer(table: pd.DataFrame, condition: str) -> str:
    """A Markdown list: per classifier, both directions between real and each method's images."""
    rows, _ = means_and_seeds(_overall(table, condition), ["method", "tested_on", "classifier"])
    lines = []
    for name, own in rows.groupby("classifier", sort=False):
        said = {(row["method"], row["tested_on"]): number(row) for _, row in own.iterrows()}
        parts = [
            f"{look_of(method).label} to real {said[method, 'real']}, real to it "
            f"{said['real', method]}"
            for method in ordered_methods(own["method"])
            if method != "real"
        ]
        lines.append(f"- {name}: real to real {said['real', 'real']}; {'; '.join(parts)}.")
    return "\n".join(lines)


def _overall(table: pd.DataFrame, condition: str) -> pd.DataFrame:
    """Overall AUC rows of a condition."""
    chosen = (table["condition"] == condition) & (table["metric"] == "auc")
    return table[chosen & (table["attribute"] == "overall")]


def _change(row: pd.Series) -> str:
    """A difference, and whether its interval for new patients leaves zero out."""
    where = f"at {100 * row['baseline_share']:g}%" if row["share"] else "against all of them"
    value, low, high = (float(row[name]) for name in ("value", "low_new", "high_new"))
    if not np.isfinite(value):
        return f"{where} not estimable"
    if not np.isfinite(low):
        return f"{where} {value:+.3f}"
    told = "higher" if low > 0 else "lower" if high < 0 else "not told from zero"
    return f"{where} {value:+.3f} ({low:+.3f} to {high:+.3f}, {told})"


def _basis(rows: pd.DataFrame) -> str:
    """What the intervals rest on, or why there is none."""
    count = int(rows["n_seeds"].max()) if len(rows) else 0
    if count < 2:
        return "One seed: a difference between arms can't be told from chance in training."
    without = ", without p" if rows["p"].isna().all() else ""
    return f"Paired over {count} seeds; intervals for new patients and new seeds{without}."
