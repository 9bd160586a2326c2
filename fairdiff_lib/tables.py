"""The study's tidy tables: cohort counts, means over seeds, gate notes, ablations.

Every table has one row per number, with its n and, where there is one, its interval.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from fairdiff_lib.cohorts import Cohort
from fairdiff_lib.config import Settings, as_dict
from fairdiff_lib.store import Layout, read_table

SPLITS = ("train", "val", "test")
VALUES = ("n", "value", "low", "high", "note")


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


# -- seeds and notes -------------------------------------------------------------------------


def over_seeds(table: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Single seeds, followed by their mean where every seed has the row.

    The mean's interval is over training runs: t with S - 1 degrees of freedom. A
    value that one seed lacks has no mean.

    Parameters
    ----------
    table : DataFrame
        A column seed, :data:`VALUES`, and others that name what was measured.

    Returns
    -------
    DataFrame
        With a column seeds ("0", or "0,1,2" for a mean) in the place of seed.
    """
    single = table.rename(columns={"seed": "seeds"})
    single["seeds"] = single["seeds"].astype(str)
    keys = [c for c in single.columns if c not in ("seeds", *VALUES)]
    count = table["seed"].nunique()
    if count < 2:
        return single
    same = single[~single["metric"].str.endswith("_worst")]  # a seed's worst level is its own
    means = [
        _mean_row(dict(zip(keys, key, strict=True)), part, confidence)
        for key, part in same.groupby(keys, sort=False, dropna=False)
        if len(part) == count
    ]
    return pd.concat([single, pd.DataFrame(means)[list(single.columns)]], ignore_index=True)


def _mean_row(key: dict[str, Any], part: pd.DataFrame, confidence: float) -> dict[str, Any]:
    values = part["value"].to_numpy(dtype=np.float64)
    mean, count = float(values.mean()), len(values)
    reach = stats.t.ppf((1 + confidence) / 2, count - 1) * values.std(ddof=1) / np.sqrt(count)
    notes = dict.fromkeys(note for note in part["note"] if note)
    return {
        **key,
        "seeds": ",".join(part["seeds"]),
        "n": int(part["n"].min()),
        "value": mean,
        "low": mean - reach,
        "high": mean + reach,
        "note": "; ".join(["mean and interval over seeds", *notes]),
    }


def failed_gates(gates: pd.DataFrame) -> list[str]:
    """One line for each gate that failed, with its value and threshold."""
    failed = gates[~gates["passed"].astype(bool)]
    return [
        f"gate {row.gate} failed for {row.method}, seed {row.seed}: "
        f"{row.value:.3g}, expected {row.comparison} {row.threshold:.3g}"
        for row in failed.itertuples()
    ]


def gate_notes(layout: Layout) -> list[str]:
    """Lines for the gates that failed, from tab_gates.csv; says so if there is none."""
    path = layout.figures / "tab_gates.csv"
    if not path.is_file():
        return ["gates were not run"]
    return failed_gates(read_table(path, ("gate", "passed", "method", "seed")))


def with_notes(table: pd.DataFrame, notes: Sequence[str]) -> pd.DataFrame:
    """The table with the notes added to every row's own note."""
    if not notes:
        return table
    text = "; ".join(notes)
    joined = [f"{own}; {text}" if own else text for own in table["note"].fillna("")]
    return table.assign(note=joined)


def pick(table: pd.DataFrame, attributes: Iterable[str], column: str = "attribute") -> pd.DataFrame:
    """Rows of the named attributes (or of another column's values), in their order."""
    return table[table[column].isin(list(attributes))].reset_index(drop=True)


# -- ablations (T12, T13) --------------------------------------------------------------------


def study_digest(settings: Settings) -> str:
    """Digest of all settings but the mitigation's: ablations of one study share it."""
    names = [name for name in as_dict(settings) if name not in ("mitigation", "methods")]
    return settings.digest(*names)


def ablation_table(quality: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """T12: overall and group KID of Fair Bayesian Perturbation at this study's settings.

    Parameters
    ----------
    quality : DataFrame
        The study's own T2 or T8, with seeds.
    settings : Settings

    Returns
    -------
    DataFrame
        study, time_window (steps), exploitation_rate, then the columns of ``quality``.
    """
    own = quality[(quality["method"] == "fairdiffusion") & (quality["metric"] == "kid")]
    m = settings.mitigation
    front = {
        "study": study_digest(settings),
        "time_window": m.time_window,
        "exploitation_rate": m.exploitation_rate,
    }
    return _in_front(own, front)


def method_table(
    quality: pd.DataFrame, downstream: pd.DataFrame, settings: Settings
) -> pd.DataFrame:
    """T13: every method's overall quality and downstream metrics, one under the other."""
    first = quality[quality["attribute"] == "overall"]
    second = downstream[downstream["level"] == "all"].rename(columns={"source": "method"})
    both = pd.concat([first, second], ignore_index=True)
    return _in_front(both, {"study": study_digest(settings)})


def _in_front(table: pd.DataFrame, columns: dict[str, Any]) -> pd.DataFrame:
    named = table.assign(**columns)
    return named[[*columns, *table.columns]].reset_index(drop=True)


def add_rows(path: Path, new: pd.DataFrame, keys: Sequence[str], dataset: str) -> pd.DataFrame:
    """A table that spans datasets and runs, with this run's rows put in.

    Rows of other datasets stay; of this dataset, rows of another study (other
    settings or data) go, and rows with the same keys are replaced.

    Parameters
    ----------
    path : Path
        The table so far; it may be missing.
    new : DataFrame
        With columns dataset and study.
    keys : sequence of str
        What names a run within a study, as time_window.
    dataset : str
    """
    if not path.is_file():
        return new
    old = read_table(path, ("dataset", "study", *keys), dtype={"seeds": str, "study": str})
    given = set(_keys(new, keys))
    same = old["dataset"] == dataset
    stale = same & ~old["study"].isin(set(new["study"]))
    replaced = same & np.array([key in given for key in _keys(old, keys)], dtype=bool)
    kept = old[~(stale | replaced)].fillna({"note": ""})
    both = pd.concat([part for part in (kept, new) if len(part)], ignore_index=True)
    ordered: pd.DataFrame = both.sort_values("dataset", kind="stable", ignore_index=True)
    return ordered


def _keys(table: pd.DataFrame, names: Sequence[str]) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in table[list(names)].to_numpy().tolist()]
