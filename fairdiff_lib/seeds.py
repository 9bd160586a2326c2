"""From one table per training seed to a mean with its interval over seeds.

The training seed is the unit of every statement about a method; subjects are shared by
all seeds, so the intervals hold for these subjects.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from fairdiff_lib.config import InputError

LEAST_SEEDS = 5  # for a p-value
OWN = ("seed", "n", "value", "low", "high", "note")
DROPPED = ("p", "p_adjusted")  # of one model; a mean over seeds has none
ONE_SEED = "one seed: interval over subjects; comparing methods needs more seeds"
SEED_INTERVAL = "interval over training seeds, for these subjects"
FEW_SEEDS = f"fewer than {LEAST_SEEDS} seeds: shown without p"


def summarise_seeds(table: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Mean over seeds of every number of a tidy table, never the best one.

    Parameters
    ----------
    table : DataFrame
        seed, n, value, low, high, note and whatever names a number (dataset, method,
        attribute, level, metric, ...). Rows of a worst level (``*_worst``) have no mean
        over several seeds and are left out there.
    confidence : float

    Returns
    -------
    DataFrame
        What names the number, then seeds (as "0,1,2"), n_seeds, n (smallest), value
        (mean), sd, low, high, note. Several seeds: t-interval with S - 1 degrees of
        freedom. One seed: the table's own interval, over subjects, and a note.
    """
    names = _names(table)
    rows = []
    if table["seed"].nunique() > 1:  # a seed's worst level is its own
        table = table[~table["metric"].str.endswith("_worst")]
    for values, part in table.groupby(names, sort=False, dropna=False):
        row = dict(zip(names, values, strict=True))
        rows.append({**row, **_over_seeds(part, confidence)})
    columns = [*names, "seeds", "n_seeds", "n", "value", "sd", "low", "high", "note"]
    return pd.DataFrame(rows, columns=columns)


def _names(table: pd.DataFrame) -> list[str]:
    missing = [column for column in OWN if column not in table.columns]
    if missing:
        raise InputError(f"table over seeds: column {missing[0]!r} is missing")
    names = [column for column in table.columns if column not in (*OWN, *DROPPED)]
    twice = table.duplicated([*names, "seed"])
    if twice.any():
        raise InputError(f"table over seeds: row {int(np.argmax(twice))} repeats another's names")
    return names


def _over_seeds(part: pd.DataFrame, confidence: float) -> dict[str, object]:
    """Mean, sd and interval of one number."""
    seeds = ",".join(str(seed) for seed in part["seed"])
    value = part["value"].to_numpy(dtype=np.float64)
    known = value[np.isfinite(value)]
    notes = list(dict.fromkeys(note for note in part["note"].fillna("") if note))
    head = {"seeds": seeds, "n_seeds": len(part), "n": int(part["n"].min())}
    if len(part) == 1:
        low, high = (float(part[side].iloc[0]) for side in ("low", "high"))
        note = "; ".join([*notes, ONE_SEED] if np.isfinite(value[0]) else notes)
        return {**head, "value": value[0], "sd": np.nan, "low": low, "high": high, "note": note}
    if len(known) < len(value):
        notes.append(f"estimable in {len(known)} of {len(value)} seeds")
    if 1 < len(known) < LEAST_SEEDS:
        notes.append(FEW_SEEDS)
    if len(known) > 1:
        notes.append(SEED_INTERVAL)
    mean, sd, low, high = t_interval(known, confidence)
    return {**head, "value": mean, "sd": sd, "low": low, "high": high, "note": "; ".join(notes)}


def t_interval(
    values: NDArray[np.float64], confidence: float = 0.95
) -> tuple[float, float, float, float]:
    """Mean, standard deviation (n - 1) and t-interval; NaN for what too few values leave open."""
    nan = float("nan")
    if len(values) < 2:
        return (float(values[0]) if len(values) else nan), nan, nan, nan
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    reach = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1)) * sd / len(values) ** 0.5
    return mean, sd, mean - reach, mean + reach


def compare_methods(
    table: pd.DataFrame, baseline: str = "none", confidence: float = 0.95
) -> pd.DataFrame:
    """Every method against a baseline, paired by seed: method minus baseline.

    Parameters
    ----------
    table : DataFrame
        As for :func:`summarise_seeds`, with a column method.
    baseline : str

    Returns
    -------
    DataFrame
        What names the number, method, baseline, seeds, n_seeds, n, value (mean difference),
        sd, low, high, p, note. t with S - 1 degrees of freedom; without p below
        ``LEAST_SEEDS`` seeds, without an interval for one.
    """
    names = _names(table)
    if "method" not in names or baseline not in set(table["method"]):
        raise InputError(f"comparison of methods: no rows of method {baseline!r}")
    keys = [*(name for name in names if name != "method"), "seed"]
    reference = table[table["method"] == baseline][[*keys, "value"]]
    others = table[table["method"] != baseline]
    both = others.merge(reference, on=keys, suffixes=("", "_baseline"))
    both["value"] -= both["value_baseline"]
    rows = []
    for values, part in both.groupby(names, sort=False, dropna=False):
        row = dict(zip(names, values, strict=True)) | {"baseline": baseline}
        rows.append({**row, **_paired(part, confidence)})
    tail = ["baseline", "seeds", "n_seeds", "n", "value", "sd", "low", "high", "p", "note"]
    return pd.DataFrame(rows, columns=[*names, *tail])


def _paired(part: pd.DataFrame, confidence: float) -> dict[str, object]:
    """Mean paired difference over seeds."""
    gaps = part["value"].to_numpy(dtype=np.float64)
    gaps = gaps[np.isfinite(gaps)]
    mean, sd, low, high = t_interval(gaps, confidence)
    p, note = float("nan"), ""
    if len(gaps) == 0:
        note = "not estimable"
    elif len(gaps) == 1:
        note = "one seed: comparing methods needs more seeds"
    elif len(gaps) < LEAST_SEEDS:
        note = FEW_SEEDS
    elif sd > 0:
        p = float(2 * stats.t.sf(abs(mean) / (sd / len(gaps) ** 0.5), len(gaps) - 1))
    return {
        "seeds": ",".join(str(seed) for seed in part["seed"]), "n_seeds": len(gaps),
        "n": int(part["n"].min()), "value": mean, "sd": sd, "low": low, "high": high,
        "p": p, "note": note,
    }  # fmt: skip
