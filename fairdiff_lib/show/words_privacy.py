"""What the privacy audits and the guidance x steps sweep say, in sentences from their tables."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fairdiff_lib.audit.memory import AUC, FOUND, NEARER, NO_SIGNAL
from fairdiff_lib.audit.seeds import means_and_seeds
from fairdiff_lib.show.style import look_of, ordered_methods
from fairdiff_lib.show.words import extremes, number

LEAST = 0.05  # adjusted p below which a difference is named


def about_nearest(table: pd.DataFrame) -> str:
    """A Markdown list: the overall share per method and feature space, read against a half."""
    own, _ = means_and_seeds(table[table["metric"] == NEARER], ["method"])
    own = own[own["attribute"] == "overall"]
    lines = []
    for method in ordered_methods(own["method"]):
        parts = [
            f"{row['features']} {number(row)}, {_against(row, NO_SIGNAL)}"
            for _, row in own[own["method"] == method].iterrows()
        ]
        lines.append(f"- {look_of(method).label}, share nearer to training: {'; '.join(parts)}.")
    return "\n".join(lines)


def about_members(table: pd.DataFrame, false_positives: float) -> str:
    """A Markdown list: AUC and members found per method, and the level that is found best."""
    shown, _ = means_and_seeds(table[table["metric"].isin([AUC, FOUND])], ["method"])
    lines = []
    for method in ordered_methods(shown["method"]):
        own = shown[shown["method"] == method]
        whole = own[own["attribute"] == "overall"]
        auc, found = (whole[whole["metric"] == name].iloc[0] for name in (AUC, FOUND))
        levels = own[(own["attribute"] != "overall") & (own["metric"] == AUC)]
        levels = levels[np.isfinite(levels["value"])]
        most = extremes(levels)[1] if len(levels) else None
        best = (
            f"; highest AUC by level: {most['level']}, {number(most)}" if most is not None else ""
        )
        lines.append(
            f"- {look_of(method).label}: AUC {number(auc)}, "
            f"{_against(auc, 0.5)}; found at {100 * false_positives:g}% false positives "
            f"{number(found)}, {_against(found, false_positives)}{best}."
        )
    return "\n".join(lines)


def about_level_gaps(contrasts: pd.DataFrame) -> str:
    """A Markdown list of the differences between levels that stand up, or that none does."""
    rows = contrasts[contrasts["role"] == "exploratory"]
    tested = rows[np.isfinite(rows["p_adjusted"])]
    found = tested[tested["p_adjusted"] < LEAST]
    head = (
        f"{len(found)} of {len(tested)} tested differences between levels stand up after "
        f"correction ({len(rows) - len(tested)} could not be tested); all are exploratory."
    )
    lines = [
        f"- {look_of(row['method']).label}, {row['metric'].replace('_', ' ')}"
        f"{_where(row)}: {row['level']} against {row['reference']} {number(row)}, "
        f"adjusted p {row['p_adjusted']:.2g}"
        for _, row in found.iterrows()
    ]
    return "\n".join([head, *([""] if lines else []), *lines])


def about_cells(changes: pd.DataFrame, features: str) -> str:
    """A Markdown list: overall change in KID of every cell against the study's own."""
    own = changes[(changes["attribute"] == "overall") & (changes["features"] == features)]
    lines = [
        f"- guidance {row['guidance']:g}, {row['steps']} steps: {number(row)}, {_told(row)}"
        for _, row in own.iterrows()
    ]
    return "\n".join(lines) if lines else "The study's own cell is the only one."


def _where(row: pd.Series) -> str:
    """The feature space, where the row rests on one, and the cell, where it is of the sweep."""
    space = f" ({row['features']})" if row["features"] else ""
    if "guidance" not in row:
        return space
    return f"{space}, guidance {row['guidance']:g}, {row['steps']} steps"


def _against(row: pd.Series, chance: float) -> str:
    """Where an interval lies relative to chance."""
    if not np.isfinite(row["low"]) or not np.isfinite(row["high"]):
        return "no interval"
    if row["low"] > chance:
        return f"above {chance:g}"
    return f"below {chance:g}" if row["high"] < chance else f"not told from {chance:g}"


def _told(row: pd.Series) -> str:
    """Whether a change in KID is told from none."""
    if not np.isfinite(row["low"]):
        return "no interval"
    return "worse" if row["low"] > 0 else "better" if row["high"] < 0 else "not told from zero"
