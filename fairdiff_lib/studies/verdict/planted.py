"""What a simulation planted, beside what the audit measured: a check of the audit, no claim."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.audit.contrasts import SPREAD
from fairdiff_lib.settings.names import method_name, name_of
from fairdiff_lib.settings.options import Population
from fairdiff_lib.studies.verdict.protocol import Protocol

LOSS = "denoising_loss"
COLUMNS = (
    "dataset", "method", "seeds", "attribute", "level", "reference", "planted", "difficulty",
    "heterogeneity", "role", "metric", "features", "n", "n_reference", "value", "low", "high",
    "p_adjusted", "smallest_effect", "mde", "excludes_zero", "direction", "detectable",
)  # fmt: skip
NOTHING = "nothing"


def planted(config: Population) -> dict[tuple[str, str], str]:
    """What the simulator was told to do to which level, in words."""
    words = (config.noise, "spread of appearance")
    found = {
        key: " and ".join(
            f"{word} x {value:g}" for word, value in zip(words, values, strict=True) if value != 1
        )
        for key, values in config.knobs.items()
    }
    return {key: text for key, text in found.items() if text}


def recovered_table(gaps: pd.DataFrame, config: Population, rule: Protocol) -> pd.DataFrame:
    """Every declared contrast of the baseline, planted against measured.

    Levels without a planted difference stand beside the others: what they show is false alarm.
    No KID was planted but noise or variety, so a contrast needn't be found where one was; how
    large a KID it should make is known to nobody.

    Parameters
    ----------
    gaps : DataFrame
        tab_contrasts.
    config : Population
        What was planted.
    rule : Protocol

    Returns
    -------
    DataFrame
        In ``COLUMNS``. difficulty, heterogeneity: planted factors of the level, relative to the
        reference's. seeds: of the models whose mean is measured. value, low, high: level minus
        reference, above 0 is worse. role: of the level's contrast, secondary below the protocol's
        least n. excludes_zero: the interval does. direction: in words; more difficulty should make
        it worse, of heterogeneity no direction is known. detectable: the smallest effect of
        interest would have been found at this n with 80% power; empty where the metric declares
        none.
    """
    own = gaps[(gaps["method"] == rule.baseline) & (gaps["level"] != SPREAD)]
    kid = (own["metric"] == rule.metric) & own["features"].isin([rule.features, rule.sensitivity])
    own = own[kid | (own["metric"] == LOSS)]
    seeds = own["seeds"].astype(str)
    own = own[seeds.str.count(",") == seeds.str.count(",").max()]
    words = planted(config)
    rows = []
    for declared in rule.contrasts:
        key = (declared.attribute, declared.level)
        part = own[(own["attribute"] == key[0]) & (own["level"] == key[1])]
        factors = _factors(config, key, (declared.attribute, declared.reference))
        for row in part.to_dict("records"):
            tested = np.isfinite(row["low"]) and np.isfinite(row["high"])
            rows.append(
                {
                    **row,
                    "dataset": rule.dataset,
                    "planted": words.get(key, NOTHING),
                    "difficulty": factors[0],
                    "heterogeneity": factors[1],
                    "role": declared.role,
                    "excludes_zero": bool(row["low"] > 0 or row["high"] < 0) if tested else None,
                    "direction": _direction(row, *factors) if tested else "no interval",
                    "detectable": _detectable(row["mde"], row["smallest_effect"]),
                }
            )
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    order = (
        table["planted"] == NOTHING,
        table["metric"] == LOSS,
        table["features"] != rule.features,
    )
    keys = {"_nothing": order[0], "_loss": order[1], "_other": order[2]}
    names = list(keys)
    ordered = table.assign(**keys).sort_values(names, kind="stable", ignore_index=True)
    return ordered.drop(columns=names)


def _factors(
    config: Population, level: tuple[str, str], reference: tuple[str, str]
) -> tuple[float, float]:
    """Planted difficulty and heterogeneity of a level, relative to its reference."""
    plain = (1.0, 1.0)
    own, other = config.knobs.get(level, plain), config.knobs.get(reference, plain)
    return own[0] / other[0], own[1] / other[1]


def _direction(row: Mapping[Any, Any], difficulty: float, heterogeneity: float) -> str:
    """Where the interval lies, and whether that is as planted."""
    if row["low"] <= 0 <= row["high"]:
        return "not told from 0"
    said = "worse" if row["low"] > 0 else "better"
    if difficulty == heterogeneity == 1:
        return f"{said}, where nothing was planted"
    if difficulty == 1:
        return f"{said}; no direction was planted"
    expected = "worse" if difficulty > 1 else "better"
    return f"{said}, as planted" if said == expected else f"{said}, against what was planted"


def _detectable(mde: float, smallest: float) -> bool | None:
    if not (np.isfinite(mde) and np.isfinite(smallest)):
        return None
    return bool(mde <= smallest)


def about_recovered(table: pd.DataFrame) -> str:
    """A Markdown list: a sentence for every measurement where something was planted."""
    rows = table[table["planted"] != NOTHING]
    if rows.empty:
        return "Nothing was planted."
    lines = [f"- {_in_words(row)}." for row in rows.to_dict("records")]
    rest = table[(table["planted"] == NOTHING) & table["excludes_zero"].notna()]
    alarms = int(rest["excludes_zero"].astype(bool).sum())
    if len(rest):
        lines.append(
            f"- Where nothing was planted, {alarms} of {len(rest)} intervals exclude 0 "
            "(not corrected for their number)."
        )
    return "\n".join(lines)


def _in_words(row: Mapping[Any, Any]) -> str:
    """One measurement against what was planted."""
    value, low, high, mde = (row[key] for key in ("value", "low", "high", "mde"))
    space = f" ({row['features']})" if row["features"] else ""
    what = name_of(row["metric"]).split(" (")[0] + space
    text = (
        f"{row['planted']} planted for {row['attribute']} {row['level']} ({row['role']}, "
        f"n={row['n']} against {row['n_reference']}): {what} of "
        f"{method_name(row['method'])}'s images"
    )
    if row["excludes_zero"] is None:
        return f"{text} has no interval"
    text += f", minus that of {row['reference']}, is {value:+.2g} ({low:+.2g} to {high:+.2g})"
    if row["excludes_zero"]:
        return f"{text}, so it is seen: {row['direction']}"
    more = ""
    if row["detectable"] is not None:
        than = "no larger" if row["detectable"] else "larger"
        more = f", which is {than} than the smallest effect of interest"
    return f"{text}, so it is not seen; {mde:.2g} would have been found with 80% power{more}"
