"""Columns of tables on disk, and the notes that a failed gate leaves on every table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from fairdiff_lib.disk.files import read_table
from fairdiff_lib.disk.places import Places
from fairdiff_lib.settings.names import method_name, name_of

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
