"""``fairdiff plan-size``: from a pilot audit to what an audit of given groups could find."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from fairdiff_lib.audit.decide import LEAST_POWER, NEXT, plan_size
from fairdiff_lib.audit.estimate import OVERALL, Estimate, group_units, not_estimable
from fairdiff_lib.audit.kid import fit_kernel, kid
from fairdiff_lib.disk.files import read_table, write_table
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.names import rounded

Key = tuple[str, str]
Pilot = dict[Key, Estimate]
SIDES = ("real", "generated")  # arrays of a pilot's features
SIZE = re.compile(r"(.+?)\s*=\s*([^=,]*)(?:,|$)")  # a level's name may have commas in it


def read_pilot(path: Path, where: Sequence[str] = ()) -> Pilot:
    """A pilot's estimates by (attribute, level), those without an error as not estimable.

    What can't be read is refused by file and field.

    ``.csv``: a row per group with attribute, level, n and either standard_error or low and high
    (95%), as tables of an audit have them; of its rows those count that are ``where``, as
    "metric=kid". ``.npz``: features ``real`` and ``generated`` [N, D], row by row of the same
    subject, and an array [N] of level names per attribute; ``subject`` [N] where a subject has
    several images. Their KID is made.
    """
    found = _from_features(path) if path.suffix == ".npz" else _from_table(path, where)
    if not any(len(levels) > 1 for levels in _levels(_usable(found)).values()):
        raise InputError(f"{path}: no attribute has two levels with a standard error")
    return found


def _usable(pilot: Mapping[Key, Estimate]) -> Pilot:
    return {key: one for key, one in pilot.items() if one.standard_error > 0}


def _levels(pilot: Mapping[Key, Estimate]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for attribute, level in pilot:
        if attribute != OVERALL[0]:
            found.setdefault(attribute, []).append(level)
    return found


def _from_table(path: Path, where: Sequence[str]) -> Pilot:
    table = read_table(path, ("attribute", "level", "n"), dtype={"attribute": str, "level": str})
    for part in where:
        name, _, wanted = part.partition("=")
        if name not in table:
            raise InputError(f"--where {part}: {path} has no column {name!r}")
        table = table[table[name].astype(str) == wanted]
        if table.empty:
            raise InputError(f"--where {part}: no row of {path} has it")
    ends = [name for name in ("low", "high") if name in table]
    if "standard_error" not in table and len(ends) < 2:
        raise InputError(f"{path}: lacks standard_error; expected it, or low and high (95%)")
    found: Pilot = {}
    columns = ["n", *(["standard_error"] if "standard_error" in table else ends)]
    lines = table.index.to_numpy(dtype=np.int64) + 2  # of the file, whatever --where took
    blank = table[["attribute", "level"]].isna().any(axis=1).to_numpy()
    if blank.any():
        raise InputError(f"{path}: line {lines[blank][0]} lacks its attribute or level")
    numbers = table[columns].apply(pd.to_numeric, errors="coerce")
    for name in columns:
        odd = (numbers[name].isna() & table[name].notna()).to_numpy()
        if odd.any():
            word = table[name].to_numpy()[odd][0]
            raise InputError(f"{path}: line {lines[odd][0]}, {name}: {word!r}; expected a number")
    for line, key in enumerate(zip(table["attribute"], table["level"], strict=True)):
        if key in found:
            raise InputError(
                f"{path}: several rows of {key[0]} {key[1]}; choose with --where, as metric=kid"
            )
        row = numbers.iloc[line]
        if key[0] == OVERALL[0]:
            continue
        if not np.isfinite(row).all():
            few = int(row["n"]) if np.isfinite(row["n"]) else 0
            found[key] = not_estimable(1, few, "the pilot has no error of it")
            continue
        if row["n"] < 2:
            raise InputError(f"{path}: n of {key[0]} {key[1]} is {row['n']:g}; expected 2 or more")
        reach = float(stats.t.ppf(0.975, row["n"] - 1))
        error = row.get("standard_error", (row.get("high", 0) - row.get("low", 0)) / 2 / reach)
        if not error > 0:
            raise InputError(f"{path}: {key[0]} {key[1]} has no positive standard error")
        found[key] = Estimate(0.0, np.array([error]), int(row["n"]), float(row["n"] - 1))
    return found


def _from_features(path: Path) -> Pilot:
    if not path.is_file():
        raise InputError(f"{path}: missing; expected a file of features")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            own = {name: arrays[name] for name in arrays.files}
    except (ValueError, TypeError, OSError) as error:  # TypeError: one array, of .npy
        raise InputError(f"{path}: not readable as .npz without pickles ({error})") from error
    missing = [name for name in SIDES if name not in own]
    if missing:
        raise InputError(f"{path}: no array {missing[0]!r}; expected {' and '.join(SIDES)}")
    real, made = (np.atleast_1d(own.pop(name)) for name in SIDES)
    short = [name for name, values in own.items() if values.shape != (len(real),)]
    if short:
        shape = list(own[short[0]].shape)
        raise InputError(f"{path}: {short[0]} has shape {shape}; expected [{len(real)}]")
    table = pd.DataFrame({name: values.astype(str) for name, values in own.items()})
    table["subject"] = own.get("subject", np.arange(len(real)))
    levels = {str(name): sorted(set(table[name])) for name in own if name != "subject"}
    if not levels:
        raise InputError(f"{path}: no attribute; expected an array of level names, as sex")
    try:
        groups = group_units(table, levels)
        found = kid(fit_kernel(real), real, made, groups)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return dict(zip(groups.keys, found, strict=True))


def read_sizes(text: str, pilot: Mapping[Key, Estimate]) -> dict[Key, int]:
    """As "race:Black=300,race:White=1200": planned subjects of some groups."""
    found: dict[Key, int] = {}
    known = {":".join(key): key for key in _usable(pilot) if key != OVERALL}
    rest = SIZE.sub("", text).strip()
    if rest:
        raise InputError(f"--sizes {rest}: expected a group and its subjects, as race:Black=300")
    for name, count in SIZE.findall(text):
        if name.strip() not in known:
            listed = "; ".join(known)
            raise InputError(
                f"--sizes {name}: no group with an error in the pilot; known: {listed}"
            )
        if not re.fullmatch("[0-9]+", count.strip()):
            raise InputError(f"--sizes {name}={count}: expected a whole number, as {name}=300")
        found[known[name.strip()]] = int(count)
    return found


def plan(
    path: Path, effect: float, sizes: str = "", where: Sequence[str] = (), output: str = ""
) -> tuple[pd.DataFrame, str]:
    """The plan as a table, and in sentences; written where an output is named."""
    whole = read_pilot(path, where)
    pilot = _usable(whole)
    table = plan_size(pilot, _levels(pilot), effect, read_sizes(sizes, pilot))
    if output:
        write_table(table, Path(output))
    said = [f"A difference of {rounded(effect)} (two-sided test, 95%, {LEAST_POWER:.0%} power):"]
    said += [
        f"  {row['attribute']}: {row['level']} (n = {row['n']:,}) against {row['reference']} "
        f"(n = {row['n_reference']:,.0f}): found with a power of {row['power']:.0%}; one of "
        f"{rounded(row['detectable'])} is detectable; needs n = {row['n_needed']:,.0f} in the "
        "smaller group, both growing alike"
        for row in table[table["power"].notna()].to_dict("records")
    ]
    said += [
        f"{row['attribute']}: the next {NEXT} subjects help most in {row['level']} "
        f"(intervals {row[f'next_{NEXT}']:.0%} narrower)"
        for row in table[table["helps_most"].astype(bool)].to_dict("records")
    ]
    said += [
        f"{key[0]}: {key[1]} (n = {one.n:,}) is left out: the pilot has no error of it"
        for key, one in whole.items()
        if key not in pilot and key != OVERALL
    ]
    return table, "\n".join(said)
