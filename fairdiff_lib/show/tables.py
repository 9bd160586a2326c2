"""The study's tidy tables: cohort counts, means over seeds, gate notes, ablations.

Every table has one row per number, with its n and, where there is one, its interval.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from fairdiff_lib.audit.seeds import summarise_seeds
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.disk.files import read_table
from fairdiff_lib.disk.places import Places

SPLITS = ("train", "val", "test")


# -- the cohort (T1) -------------------------------------------------------------------------


def cohort_table(cohort: Cohort, dataset: str, confidence: float = 0.95) -> pd.DataFrame:
    """Subjects by attribute level and split, and prevalence of every condition level.

    Parameters
    ----------
    cohort : Cohort
        Excluded rows are left out.
    dataset : str
    confidence : float
        Of the Wilson intervals.

    Returns
    -------
    DataFrame
        dataset, split (train, val, test, all), attribute, level, condition,
        condition_level, metric ("count": subjects, "images", "prevalence"), n
        (subjects), value, low, high.
    """
    included = cohort.included()
    subjects = included.table.drop_duplicates("subject")
    levels = {"overall": ("all",)} | {a.name: a.levels for a in cohort.spec.attributes}
    rows: list[dict[str, Any]] = []
    for split in (*SPLITS, "all"):
        for attribute, names in levels.items():
            for level in names:
                key = {"dataset": dataset, "split": split, "attribute": attribute, "level": level}
                own = _rows_of(subjects, split, attribute, level)
                images = len(_rows_of(included.table, split, attribute, level))
                rows += _counts(key, len(own), images)
                rows += _prevalences(key, own, cohort, confidence)
    return pd.DataFrame(rows)


def _rows_of(table: pd.DataFrame, split: str, attribute: str, level: str) -> pd.DataFrame:
    if split != "all":
        table = table[table["split"] == split]
    return table if attribute == "overall" else table[table[attribute] == level]


def _counts(key: dict[str, Any], subjects: int, images: int) -> list[dict[str, Any]]:
    blank = {"condition": "", "condition_level": "", "n": subjects, "low": np.nan, "high": np.nan}
    return [
        {**key, **blank, "metric": "count", "value": float(subjects)},
        {**key, **blank, "metric": "images", "value": float(images)},
    ]


def _prevalences(
    key: dict[str, Any], own: pd.DataFrame, cohort: Cohort, confidence: float
) -> list[dict[str, Any]]:
    """Share of subjects at every condition level, with Wilson's interval; NaN without subjects."""
    rows = []
    for condition in cohort.spec.conditions:
        for level in condition.levels:
            hits, n = int((own[condition.name] == level).sum()), len(own)
            low, high = (np.nan, np.nan)
            if n:
                low, high = proportion_confint(hits, n, alpha=1 - confidence, method="wilson")
            value = hits / n if n else np.nan
            name = {"condition": condition.name, "condition_level": level, "metric": "prevalence"}
            rows.append({**key, **name, "n": n, "value": value, "low": low, "high": high})
    return rows


def split_table(cohort: Cohort) -> pd.DataFrame:
    """Per split: subjects, images, excluded images, and subjects shared with another split."""
    table = cohort.table
    homes = table.groupby("subject")["split"].nunique()
    rows = []
    for split in SPLITS:
        own = table[table["split"] == split]
        kept = own[own["excluded"] == ""]
        rows.append(
            {
                "split": split,
                "subjects": kept["subject"].nunique(),
                "images": len(kept),
                "excluded_images": len(own) - len(kept),
                "subjects_in_another_split": int((homes[own["subject"].unique()] > 1).sum()),
            }
        )
    return pd.DataFrame(rows)


# -- names of columns on disk ----------------------------------------------------------------

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


# -- seeds and notes -------------------------------------------------------------------------


def over_seeds(table: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Means over seeds, followed by the single seeds where there are several.

    Parameters
    ----------
    table : DataFrame
        As for ``seeds.summarise_seeds``.
    confidence : float

    Returns
    -------
    DataFrame
        As ``seeds.summarise_seeds``; seeds is "0" for one run, "0,1,2" for a mean.
    """
    parts = [summarise_seeds(table, confidence)]
    if table["seed"].nunique() > 1:
        parts += [summarise_seeds(own, confidence) for _, own in table.groupby("seed")]
    return pd.concat(parts, ignore_index=True)


def single_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of one training run, without the means."""
    return table[~table["seeds"].astype(str).str.contains(",")]


MOST_NAMED = 6  # runs in a line; of more, the range


def failed_gates(gates: pd.DataFrame) -> list[str]:
    """One line for each gate that failed, with its threshold and the failing runs' values."""
    failed = gates[~gates["passed"].astype(bool)]
    lines = []
    for gate, own in failed.groupby("gate", sort=False):
        values = ", ".join(f"{r.method} seed {r.seed}: {r.value:.3g}" for r in own.itertuples())
        if len(own) > MOST_NAMED:
            runs = int((gates["gate"] == gate).sum())
            least, most = own["value"].min(), own["value"].max()
            values = f"in {len(own)} of {runs} runs: {least:.3g} to {most:.3g}"
        wanted = f"{own['comparison'].iloc[0]} {own['threshold'].iloc[0]:.3g}"
        lines.append(f"gate {gate} failed (expected {wanted}; {values})")
    return lines


GATE_COLUMNS = ("dataset", "gate", "passed", "method", "seeds", "value", "comparison", "threshold")


def gate_notes(layout: Places) -> list[str]:
    """Lines for the gates that failed, from tab_gates.csv; says so if there is none."""
    path = layout.figures / "tab_gates.csv"
    if not path.is_file():
        return ["gates were not run"]
    return failed_gates(as_read(read_table(path, GATE_COLUMNS, dtype={"seeds": str})))


def gate_notes_of_all(layout: Places) -> list[str]:
    """The same for every dataset of the preset, each line with its dataset."""
    found = []
    for path in sorted(layout.figures.parent.glob("*/tab_gates.csv")):
        gates = as_read(read_table(path, GATE_COLUMNS, dtype={"seeds": str}))
        for dataset, own in gates.groupby("dataset"):
            found += [f"{dataset}: {line}" for line in failed_gates(own)]
    return found


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


def pick(table: pd.DataFrame, attributes: Iterable[str], column: str = "attribute") -> pd.DataFrame:
    """Rows of the named attributes (or of another column's values), in their order."""
    return table[table[column].isin(list(attributes))].reset_index(drop=True)
