"""Does a study that was run again, perhaps on another machine, say what was committed?

Bits differ between processors, and so do trained models. What has to hold is what a reader takes
away: new values lie in the committed intervals, and what was decided stays decided.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from fairdiff_lib.disk.files import read_table, refuse_other
from fairdiff_lib.disk.stamps import make_provenance, publish_table
from fairdiff_lib.settings.errors import InputError

# columns that say what a row is about
ABOUT = ("dataset", "claim", "part", "endpoint", "method", "baseline", "arm", "classifier",
         "condition", "attribute", "level", "reference", "metric", "features")  # fmt: skip
CLAIM = ("dataset", "claim", "part")  # of T14: which contrast leads a claim is found, not asked
CLAIMS = ("tab_verdict.csv", "tab14.csv")
VALUES = ("value", "low", "high")
NTH, AGAIN = "of its kind", " again"
ROUNDING = 1e-9  # limits at 0 or 1 are not exactly there
# of the values: two runs that know nothing of each other lie in each other's 95% intervals with a
# probability of 83%, where these hold all that varies. Those of one training hold patients alone
LEAST = 0.83


@dataclass(frozen=True)
class Compared:
    """A table that both studies have."""

    name: str
    values: int  # with a committed interval
    outside: int
    decided: int  # rows with an outcome
    missing: int  # committed rows, of data sets that both have, that the new study lacks
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
    old, new = (read_table(path, dtype=words).fillna(dict.fromkeys(words, ""))
                for path in (committed, made))  # fmt: skip
    about = [key for key in (CLAIM if committed.name in CLAIMS else ABOUT) if key in old]
    if not {*VALUES} <= {*old.columns} or not about:
        return
    if not {*about, *VALUES} <= {*new.columns}:
        raise InputError(f"{made}: lacks columns of {committed}")
    both = _numbered(old, about).merge(
        _numbered(new, about), on=[*about, NTH], suffixes=("", AGAIN)
    )
    if both.empty and len(old) and len(new):
        raise InputError(f"{made}: its rows are about something else than those of {committed}")
    asked = old[old["dataset"].isin(new["dataset"])] if "dataset" in about else old
    has = both["low"].notna() & both["high"].notna() & both[f"value{AGAIN}"].notna()
    if f"level{AGAIN}" in both:  # of T14: only a claim that the same contrast leads has one value
        has &= both["level"] == both[f"level{AGAIN}"]
    low, high = both["low"] - ROUNDING, both["high"] + ROUNDING
    off = has & ~both[f"value{AGAIN}"].between(low, high)
    decided = both if f"outcome{AGAIN}" in both else both.head(0)
    changed = [
        f"{name}: {', '.join(str(row[key]) for key in about if row[key])}: committed "
        f"{row['outcome']}, now {row[f'outcome{AGAIN}']}"
        for row in decided.to_dict("records")
        if row["outcome"] != row[f"outcome{AGAIN}"]
    ]
    yield Compared(
        name, int(has.sum()), int(off.sum()), len(decided), len(asked) - len(both), changed
    )


def _numbered(table: pd.DataFrame, about: list[str]) -> pd.DataFrame:
    """Rows of one subject, as those of several seeds, are told apart by their order.

    Whose the worst value is, is found and not asked: it is no part of what a row is about.
    """
    if {"metric", "level"} <= {*about}:
        worst = table["metric"].str.endswith("_worst")
        table = table.assign(level=table["level"].mask(worst, ""))
    return table.assign(**{NTH: table.groupby(about, sort=False).cumcount()})


def check_agreement(made: Path, committed: Path, place: Path) -> list[str]:
    """Print how far two studies agree, table by table in ``place``; problems, a line each."""
    refuse_other(place, "again.csv", "again.json")
    found = compare_studies(made, committed)
    for one in found:
        if one.outside:
            print(f"{one.name}: {one.outside} of {one.values} values outside their interval")
    values, outside = sum(one.values for one in found), sum(one.outside for one in found)
    changed = [line for one in found for line in one.changed]
    lacking = [f"{one.name}: {one.missing} committed rows are not there"
               for one in found if one.missing]  # fmt: skip
    problems = [*changed, *lacking]
    decided = sum(one.decided for one in found)
    print(
        f"{len(found)} tables in common: {values - outside} of {values} values lie in the "
        f"committed intervals, {decided - len(changed)} of {decided} outcomes are the same"
    )
    rows = [asdict(one) | {"changed": len(one.changed)} for one in found]
    stamp = {"parameters": {"least": LEAST}, **make_provenance()}
    publish_table(pd.DataFrame(rows), place / "again.csv", stamp)
    if outside > (1 - LEAST) * values:
        problems.append(
            f"{outside} of {values} values lie outside: expected at most {1 - LEAST:.0%}"
        )
    return problems
