"""What a simulation planted, beside what was measured: the claim that simulated data can test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from fairdiff_lib.settings.options import Population

NOTHING = "nothing"
FOUND, MISSED, ALARM, QUIET = "found", "not found", "false alarm", "rightly quiet"
Key = tuple[str, str]


def planted(config: Population) -> dict[Key, str]:
    """What the simulator was told to do to which level, in words."""
    words = (config.noise, "spread of appearance")
    found = {
        key: " and ".join(
            f"{word} x {value:g}" for word, value in zip(words, values, strict=True) if value != 1
        )
        for key, values in config.knobs.items()
    }
    return {key: text for key, text in found.items() if text}


def with_planted(contrasts: pd.DataFrame, config: Population) -> pd.DataFrame:
    """Differences between levels with two more columns: what was planted, and what became of it.

    Noise or variety was planted, not a distance: nobody knows how large a difference it should
    make, only that one is there, and its direction where noise was planted. ``low`` and ``high``
    hold over the family, so that a false alarm anywhere is rare.
    """
    words = planted(config)
    rows = contrasts.to_dict("records")
    told = [words.get((row["attribute"], row["level"]), NOTHING) for row in rows]
    what = [_became(row["low"], row["high"], *_factors(config, row)) for row in rows]
    return contrasts.assign(planted=told, as_planted=what)


def _factors(config: Population, row: Mapping[Any, Any]) -> tuple[float, float]:
    """Planted difficulty and heterogeneity of a level, relative to its reference."""
    plain = (1.0, 1.0)
    own, other = (config.knobs.get((row["attribute"], row[side]), plain)
                  for side in ("level", "reference"))  # fmt: skip
    return own[0] / other[0], own[1] / other[1]


def _became(low: float, high: float, difficulty: float, heterogeneity: float) -> str:
    seen = bool(low > 0 or high < 0)
    if difficulty == heterogeneity == 1:
        return ALARM if seen else QUIET
    if not seen:
        return MISSED
    wanted = difficulty == 1 or (low > 0) == (difficulty > 1)
    return FOUND if wanted else "found in the wrong direction"


def tally(rows: pd.DataFrame) -> str:
    """As "1 of 2 planted differences found, no false alarm in 4"."""
    there = rows[~rows["as_planted"].isin([ALARM, QUIET, ""])]
    rest = rows[rows["as_planted"].isin([ALARM, QUIET])]
    alarms, found = (
        int((rest["as_planted"] == ALARM).sum()),
        int((there["as_planted"] == FOUND).sum()),
    )
    parts = [f"{found} of {len(there)} planted differences found"] * bool(len(there))
    parts += [f"{alarms or 'no'} false alarm{'s' * (alarms > 1)} in {len(rest)}"] * bool(len(rest))
    return ", ".join(parts) or "no difference between groups could be looked at"
