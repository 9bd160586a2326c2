"""What a simulation planted, beside what was measured: the claim that simulated data can test.

Noise and variety are planted in images, real ones among them: a generator may serve such a group as
well as any. Fewer and worse training images are planted in the generator. Where that was done, the
claim is about that alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from fairdiff_lib.settings.options import PlantConfig, Population

NOTHING = "nothing"
FOUND, MISSED, ALARM, QUIET = "found", "not found", "false alarm", "rightly quiet"
NOT_JUDGED = "not judged"  # planted in images, beside a plant in the generator
Key = tuple[str, str]


def planted(config: Population) -> dict[Key, str]:
    """What the simulator was told to do to which level, in words."""
    words, own = (config.noise, "spread of appearance"), config.plant
    found = {
        key: [
            f"{word} x {value:g}" for word, value in zip(words, values, strict=True) if value != 1
        ]
        for key, values in config.knobs.items()
    }
    told = [f"{own.kept:.0%} of its training images"] * (own.kept < 1)
    told += [f"{own.mislabelled:.0%} of them with another's labels"] * (own.mislabelled > 0)
    told += [f"in {own.height} pixels of height"] * (own.height > 0)
    if config.served_worse and told:
        words_of_plant = f"a generator that saw {', '.join(told)}"
        found.setdefault(config.served_worse, []).append(words_of_plant)
    return {key: " and ".join(parts) for key, parts in found.items() if parts}


def with_planted(contrasts: pd.DataFrame, config: Population) -> pd.DataFrame:
    """Differences between levels with two more columns: what was planted, and what became of it.

    Noise, variety or worse training images were planted, not a distance: nobody knows how large a
    difference they should make, only that one is there, and its direction but for variety.
    ``low`` and ``high`` hold over the family, so that a false alarm anywhere is rare. Where the
    generator itself was given worse images of a group, what was planted in all images of another
    is told and not judged.
    """
    words = planted(config)
    rows = contrasts.to_dict("records")
    told = [words.get((row["attribute"], row["level"]), NOTHING) for row in rows]
    what = [_became(row, config) for row in rows]
    return contrasts.assign(planted=told, as_planted=what)


def _became(row: Mapping[Any, Any], config: Population) -> str:
    plain, ends = (1.0, 1.0), [(row["attribute"], row[side]) for side in ("level", "reference")]
    own, other = (config.knobs.get(end, plain) for end in ends)
    neutral = config.plant == PlantConfig(on=config.plant.on)
    trained = None if neutral else config.served_worse
    worse = [end == trained for end in ends]
    above, below = row["low"] > 0, row["high"] < 0
    if any(worse) or (own != other and not trained):
        if not above and not below:
            return MISSED
        harder = worse[0] if any(worse) else own[0] > other[0]
        either = not any(worse) and own[0] == other[0]  # more varied: in any direction
        return FOUND if either or above == harder else "found in the wrong direction"
    if own != other:
        return NOT_JUDGED
    return ALARM if above or below else QUIET


def tally(rows: pd.DataFrame) -> str:
    """As "1 of 2 planted differences found, no false alarm in 4"."""
    there = rows[~rows["as_planted"].isin([ALARM, QUIET, NOT_JUDGED, ""])]
    rest = rows[rows["as_planted"].isin([ALARM, QUIET])]
    alarms, found = (
        int((rest["as_planted"] == ALARM).sum()),
        int((there["as_planted"] == FOUND).sum()),
    )
    parts = [f"{found} of {len(there)} planted differences found"] * bool(len(there))
    parts += [f"{alarms or 'no'} false alarm{'s' * (alarms > 1)} in {len(rest)}"] * bool(len(rest))
    return ", ".join(parts) or "no difference between groups could be looked at"
