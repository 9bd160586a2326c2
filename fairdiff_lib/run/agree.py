"""Does a study that was run again, perhaps on another machine, say what was committed?

Bits differ between processors, and so do trained models. What has to hold is what a reader takes
away: new values lie in the committed intervals, and what was decided stays decided.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fairdiff_lib.disk.files import read_table
from fairdiff_lib.settings.errors import InputError

# columns that say what a row is about
ABOUT = ("dataset", "claim", "part", "endpoint", "method", "baseline", "arm", "classifier",
         "condition", "attribute", "level", "reference", "metric", "features")  # fmt: skip
VALUES = ("value", "low", "high")
ROUNDING = 1e-9  # limits at 0 or 1 are not exactly there
LEAST = 0.95  # of the values: intervals are 95%, and those of one seed hold no more than patients


@dataclass(frozen=True)
class Compared:
    """A table that both studies have."""

    name: str
    values: int  # with a committed interval
    outside: int
    decided: int  # rows with an outcome
    changed: list[str]  # what was decided otherwise, a line each


def compare_studies(made: Path, committed: Path) -> list[Compared]:
    """Tables of one figures folder against those of another that have the same name.

    Raises
    ------
    InputError
        No table in common, or one whose rows are about something else.
    """
    names = sorted(path.relative_to(committed) for path in committed.rglob("*.csv"))
    found = [one for name in names if (made / name).is_file()
             for one in _compare(name.as_posix(), made / name, committed / name)]  # fmt: skip
    if not found:
        raise InputError(f"{made}: no table in common with {committed}; expected a figures folder")
    return found


def _compare(name: str, made: Path, committed: Path) -> Iterator[Compared]:
    words = dict.fromkeys((*ABOUT, "outcome"), str)
    old, new = (read_table(path, dtype=words) for path in (committed, made))
    about = [key for key in ABOUT if key in old]
    if not {*VALUES} <= {*old.columns} or not about:
        return
    if not {*about, *VALUES} <= {*new.columns} or not old[about].equals(new[about]):
        raise InputError(f"{made}: its rows are about something else than those of {committed}")
    has = old["low"].notna() & old["high"].notna() & new["value"].notna()
    off = has & ~new["value"].between(old["low"] - ROUNDING, old["high"] + ROUNDING)
    outcomes = "outcome" in old and "outcome" in new
    rows = [*zip(old["outcome"], new["outcome"], strict=True)] if outcomes else []
    changed = [
        f"{name}: {', '.join(map(str, old.loc[at, about].dropna()))}: committed {one}, now {other}"
        for at, (one, other) in enumerate(rows)
        if one != other and not pd.isna([one, other]).all()
    ]
    yield Compared(name, int(has.sum()), int(off.sum()), len(rows), changed)


def check_agreement(made: Path, committed: Path) -> list[str]:
    """Print how far two studies agree; problems, a line each."""
    found = compare_studies(made, committed)
    for one in found:
        if one.outside:
            print(f"{one.name}: {one.outside} of {one.values} values outside their interval")
    values, outside = sum(one.values for one in found), sum(one.outside for one in found)
    problems = [line for one in found for line in one.changed]
    decided = sum(one.decided for one in found)
    print(
        f"{len(found)} tables in common: {values - outside} of {values} values lie in the "
        f"committed intervals, {decided - len(problems)} of {decided} outcomes are the same"
    )
    if outside > (1 - LEAST) * values:
        problems.append(
            f"{outside} of {values} values lie outside: expected at most {1 - LEAST:.0%}"
        )
    return problems
