"""Tables: their columns on disk, their form for a reader, and what a failed gate leaves on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pandas as pd

from fairdiff_lib.disk.files import read_table
from fairdiff_lib.disk.places import Places
from fairdiff_lib.settings.names import (
    classifier_name,
    head_of,
    level_name,
    method_name,
    name_of,
    rounded,
)

DOWNSTREAM_COLUMNS = (
    *("dataset", "method", "seeds", "classifier", "condition", "attribute", "level", "metric"),
    *("features", "n", "value", "low", "high", "note"),
)


def as_written(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the column names of every file: method for source, seeds for seed.

    Tables of classifiers get an empty ``features``, and their further columns go last.
    """
    if "seed" in table.columns:
        table = table.rename(columns={"seed": "seeds"}).astype({"seeds": str})
    if "source" not in table.columns:
        return table
    table = table.rename(columns={"source": "method"}).assign(features="")
    further = [name for name in table.columns if name not in DOWNSTREAM_COLUMNS]
    return table[[*DOWNSTREAM_COLUMNS, *further]]


def as_read(table: pd.DataFrame) -> pd.DataFrame:
    """Undo :func:`as_written`: the names that are used in memory.

    Tables of classifiers name a ``source``; tables without means over seeds, a ``seed``.
    """
    if "classifier" in table.columns:
        return table.rename(columns={"method": "source"}).drop(columns="features")
    if "n_seeds" not in table.columns:
        return table.rename(columns={"seeds": "seed"})
    return table


def pick(table: pd.DataFrame, attributes: Iterable[str], column: str = "attribute") -> pd.DataFrame:
    """Rows of the named attributes (or of another column's values), in their order."""
    return table[table[column].isin(list(attributes))].reset_index(drop=True)


# -- as readers see them ---------------------------------------------------------------------

FIRST = ("level", "value", "low", "high", "n")
IN_FILE_ONLY = ("note", "sd", "n_seeds", "study", "p_new", "low_new", "high_new", "protocol")
NAMED = ("attribute", "metric", "condition", "gate", "quantity", "outcome", "setting")


def means_only(table: pd.DataFrame, keep: Iterable[str] = ()) -> pd.DataFrame:
    """Means over seeds where there are some, without notes and the like (but those to keep)."""
    if "n_seeds" in table and (table["n_seeds"] > 1).any():
        table = table[table["n_seeds"] > 1]
    left_out = [name for name in IN_FILE_ONLY if name in table and name not in keep]
    return table.drop(columns=left_out).reset_index(drop=True)


def told_apart(
    table: pd.DataFrame, keep: Iterable[str] = (), datasets: Callable[[str], str] = str
) -> tuple[pd.DataFrame, list[str]]:
    """Cells in words, level, value, low, high and n first; and what all rows share, in words.

    Parameters
    ----------
    table : DataFrame
    keep : iterable of str
        Columns that stay though all rows agree.
    datasets : callable
        From a data set's name to how readers see it.
    """
    words = pd.DataFrame({str(key): _in_words(str(key), table[key], datasets) for key in table})
    if {"attribute", "level"} <= set(table):
        pairs = zip(table["attribute"].astype(str), table["level"].astype(str), strict=True)
        words["level"] = [level_name(*pair) for pair in pairs]
        words = words.drop(columns="attribute")
    alike: list[str] = []
    if len(words) > 1:
        for key in [str(k) for k in words if words[k].nunique(dropna=False) == 1]:
            value = words[key].iloc[0]
            if key in keep and not (key in ("low", "high") and pd.isna(value)):
                continue
            words = words.drop(columns=key)
            if not pd.isna(value) and value != "":
                alike.append(f"{head_of(key)} {in_cell(value)}")
    first = [key for key in FIRST if key in words] if {"level", "low"} & set(words) else []
    return words[[*first, *(key for key in words if key not in first)]], alike


def in_cell(value: Any, digits: int = 3) -> str:
    """A cell's text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return rounded(value, digits) if isinstance(value, float) else f"{value}"


def _in_words(column: str, cells: pd.Series[Any], datasets: Callable[[str], str]) -> pd.Series[Any]:
    """Names as readers see them; text that a CSV lost is empty, not missing."""
    if pd.api.types.is_numeric_dtype(cells):
        return cells
    plain = cells.astype(object).where(cells.notna(), "")
    named: dict[str, Callable[[str], str]] = {
        "dataset": datasets,
        "classifier": classifier_name,
        **dict.fromkeys(("method", "baseline", "source", "arm", "tested_on"), method_name),
        **dict.fromkeys(NAMED, name_of),
    }
    if column not in named:
        return plain
    name = named[column]
    return plain.map(lambda value: name(value) if isinstance(value, str) and value else value)


# -- gates ------------------------------------------------------------------------------------

MOST_NAMED = 6  # runs in a line; of more, the range
WANTED = {">=": "at least", ">": "above", "<": "below", "<=": "at most"}


def failed_gates(gates: pd.DataFrame) -> list[str]:
    """One line for each gate that failed, with its threshold and the failing runs' values."""
    failed = gates[~gates["passed"].astype(bool)]
    lines = []
    for gate, own in failed.groupby("gate", sort=False):
        values = ", ".join(
            f"{r.value:.3g} ({method_name(str(r.method))}, seed {r.seed})" for r in own.itertuples()
        )
        if len(own) > MOST_NAMED:
            runs = int((gates["gate"] == gate).sum())
            values = f"{own['value'].min():.3g} to {own['value'].max():.3g} in {len(own)} of {runs}"
            values += " runs"
        wanted = f"{WANTED[own['comparison'].iloc[0]]} {own['threshold'].iloc[0]:.3g}"
        lines.append(f'check failed: "{name_of(str(gate))}", wanted {wanted}, found {values}')
    return lines


GATE_COLUMNS = ("dataset", "gate", "passed", "method", "seeds", "value", "comparison", "threshold")


def gate_notes(places: Places) -> list[str]:
    """Lines for the gates that failed, from tab_gates.csv; says so if there is none."""
    path = places.figures / "tab_gates.csv"
    if not path.is_file():
        return ["the checks of notebook 05 were not run"]
    return failed_gates(as_read(read_table(path, GATE_COLUMNS, dtype={"seeds": str})))


def with_notes(table: pd.DataFrame, notes: Sequence[str]) -> pd.DataFrame:
    """The table with the notes added to every row's own note."""
    if not notes:
        return table
    text = "; ".join(notes)
    joined = [f"{own}; {text}" if own else text for own in table["note"].fillna("")]
    return table.assign(note=joined)


TEXT = ("note", "baseline", "condition", "features", "classifier")


def with_text(table: pd.DataFrame) -> pd.DataFrame:
    """Empty text, which a CSV does not tell from a missing number, as "" again."""
    names = [name for name in TEXT if name in table.columns]
    filled = {name: [x if isinstance(x, str) else "" for x in table[name]] for name in names}
    return table.assign(**filled)
