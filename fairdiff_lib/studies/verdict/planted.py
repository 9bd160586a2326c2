"""What a simulation planted, beside what the audit measured: a check of the audit, no claim."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.audit.contrasts import SPREAD
from fairdiff_lib.settings.options import Population
from fairdiff_lib.studies.verdict.protocol import Protocol
from fairdiff_lib.studies.verdict.table import read_contrasts
from fairdiff_lib.study import Study

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


def planted_table(gaps: pd.DataFrame, config: Population, rule: Protocol) -> pd.DataFrame:
    """Every declared contrast of the baseline, planted against measured.

    Levels without a planted difference stand beside the others: what they show is false alarm.
    No KID was planted but noise or variety, so a contrast needn't be found where one was; how
    large a KID it should make is known to nobody.

    Parameters
    ----------
    gaps : DataFrame
        tab_contrasts.

    Returns
    -------
    DataFrame
        In ``COLUMNS``. difficulty, heterogeneity: planted, of the level over the reference's.
        value, low, high: level minus reference, above 0 is worse. excludes_zero: the interval does.
        detectable: the smallest effect of interest would have been found at this n with 80% power;
        empty where the metric declares none.
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
    order = pd.DataFrame(
        {
            "nothing": table["planted"] == NOTHING,
            "loss": table["metric"] == LOSS,
            "other": table["features"] != rule.features,
        }
    ).sort_values(["nothing", "loss", "other"], kind="stable")
    return table.loc[order.index].reset_index(drop=True)


def collect_planted(study: Study, rule: Protocol) -> pd.DataFrame:
    """:func:`planted_table` of a study's own contrasts; no row for real data."""
    population = study.settings.simulator
    if population is None:
        return pd.DataFrame(columns=list(COLUMNS))
    return planted_table(read_contrasts(study), population, rule)


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
