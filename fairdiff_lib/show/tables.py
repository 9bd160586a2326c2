"""What is left of the tables' short forms, until every notebook shows tables by ``table``."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from fairdiff_lib.audit.seeds import over_seeds as over_seeds
from fairdiff_lib.audit.seeds import single_seeds as single_seeds
from fairdiff_lib.data.counts import cohort_table as cohort_table
from fairdiff_lib.data.counts import split_table as split_table
from fairdiff_lib.disk.tables import as_read as as_read
from fairdiff_lib.disk.tables import as_written as as_written
from fairdiff_lib.disk.tables import failed_gates as failed_gates
from fairdiff_lib.disk.tables import gate_notes as gate_notes
from fairdiff_lib.disk.tables import pick as pick
from fairdiff_lib.disk.tables import with_notes as with_notes
from fairdiff_lib.disk.tables import with_text as with_text


def brief(table: pd.DataFrame, keep: Sequence[str] = ()) -> pd.DataFrame:
    """What a reader of a notebook needs: means where there are several seeds, fewer columns.

    All rows and columns are in the CSV; those of ``keep`` stay.
    """
    if "n_seeds" in table.columns and (table["n_seeds"] > 1).any():
        table = table[table["n_seeds"] > 1]
    left_out = ["dataset", "condition", "n_seeds", "sd", "note", "study"]
    left_out += ["smallest_effect", "p_equivalence", "p_new"]
    alike = ("features", "classifier")
    left_out += [name for name in alike if name in table and table[name].nunique() < 2]
    return table[[name for name in table.columns if name in keep or name not in left_out]]


def without_alike(
    table: pd.DataFrame, keep: Sequence[str] = ()
) -> tuple[pd.DataFrame, dict[str, object]]:
    """The columns that tell rows apart, and the value of each that doesn't (if it has one)."""
    if len(table) < 2:
        return table, {}
    names = [name for name in table.columns if name not in keep]
    alike = [name for name in names if table[name].nunique(dropna=False) == 1]
    filled = table[alike].astype(object).where(table[alike].notna(), "not estimable")
    told = {name: filled[name].iloc[0] for name in alike if filled[name].iloc[0] != ""}
    return table.drop(columns=alike), told
