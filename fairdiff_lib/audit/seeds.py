"""From one table per training seed to a mean with its interval, for new runs on new patients.

The training seed is the unit of every statement about a method. Subjects are shared by all
seeds, so the spread over seeds speaks of these subjects alone, and an interval made of it is many
times too short for a reader: what drawing others would change is added everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special, stats

from fairdiff_lib.audit.audit import Audit, differences, same_kind
from fairdiff_lib.audit.estimate import Estimate, mean_estimate, not_estimable
from fairdiff_lib.settings.errors import InputError

LEAST_SEEDS = 5  # for a p-value
LEAST_RUNS = 3  # two say too little about a variance: t with 1 degree of freedom
OWN = ("seed", "n", "value", "low", "high", "note")
DROPPED = ("p", "p_adjusted")  # of one model; a mean over seeds has none
ONE_SEED = "one seed: interval over subjects"
NEW_INTERVAL = "interval for new subjects and new training runs"
MEAN_INTERVAL = "interval over subjects, of the mean of these runs"
SEED_INTERVAL = "interval over training seeds, for these subjects"  # of what has none of its own
SAME_NOTE = "the same for every seed: interval as of one"
RATE = re.compile(  # of all metrics over seeds, those in [0, 1]
    r"(\w+_)?(auc|accuracy|brier|ece|fnr|fpr|tpr|rate|precision|recall|coverage|agreement|lost"
    r"|flips|dpd|eod|auc_both_ways|auc_mismatched|auc_best_test_epoch|nearer_to_training)"
    r"(_at_equal_sensitivity)?(_gap|_gap_by_chance)?(_as_released)?"
)
FEW_SEEDS = f"fewer than {LEAST_SEEDS} seeds: shown without p"
NEW_NOTE = "low to high: these patients; low_new to high_new: new patients and new seeds"
CHANGE_COLUMNS = (
    "method", "baseline", "seeds", "n_seeds", "attribute", "level", "metric", "features", "n",
    "value", "sd", "low", "high", "p", "low_new", "high_new", "p_new", "note",
)  # fmt: skip


def summarise_seeds(table: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Mean over seeds of every number of a tidy table, never the best one.

    The table has seed, n, value, low, high, note and whatever names a number. Rows of a worst level
    (``*_worst``) have no mean over several seeds and are left out there. Returned: what names the
    number, then seeds (as "0,1,2"), n_seeds, n (smallest), value (mean), sd, low, high, note.
    Several seeds: for new subjects and new runs, see :func:`_for_new_subjects`; of a number without
    an interval of its own the t-interval over seeds, S - 1 degrees of freedom. One seed, or a
    number that no seed changes: the table's own interval, over subjects. A note says which.
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
    own = [float(part[side].iloc[0]) for side in ("low", "high")]
    fixed = part[["value", "low", "high"]].nunique(dropna=False).eq(1).all()
    if len(part) == 1:
        mean, sd, low, high = value[0], np.nan, *own
        notes += [ONE_SEED] if np.isfinite(value[0]) else []
    elif fixed and len(known):  # no training changes it, as the floor between reals
        mean, sd, low, high = known[0], 0.0, *own
        notes.append(SAME_NOTE)
    else:
        rate = RATE.fullmatch(str(part["metric"].iloc[0])) is not None
        mean, sd, low, high = t_interval(known, confidence, rate)
        fewer = f"estimable in {len(known)} of {len(value)} seeds"
        notes += [fewer] if len(known) < len(value) else []
        notes += [FEW_SEEDS] if 1 < len(known) < LEAST_SEEDS else []
        ends = _for_new_subjects(part[np.isfinite(value)], mean, sd, high, confidence)
        several = NEW_INTERVAL if len(known) >= LEAST_RUNS else MEAN_INTERVAL
        notes += [several if ends else SEED_INTERVAL] if len(known) > 1 else []
        low, high = ends or (low, high)
        if rate and ends:
            low, high = max(low, 0.0), min(high, 1.0)
    if str(part["metric"].iloc[0]).startswith("es_"):  # biased: an interval would not hold
        low = high = np.nan
    numbers = {"value": mean, "sd": sd, "low": low, "high": high, "note": "; ".join(notes)}
    return {"seeds": seeds, "n_seeds": len(part), "n": int(part["n"].min()), **numbers}


def _for_new_subjects(
    part: pd.DataFrame, mean: float, sd: float, high: float, confidence: float
) -> tuple[float, float] | None:
    """Interval of a mean over runs on the same subjects, when both are drawn anew.

    V = sd^2 / S + V_subjects, degrees of freedom after Satterthwaite (1946). A table has no
    influence values: V_subjects is the single runs' own, its mean over the runs, as if all of it
    were shared. So it errs, if at all, on the wide side, and is never narrower than the interval
    for these subjects, up to ``high``. Of fewer than ``LEAST_RUNS`` it holds for these runs on new
    subjects. None where a run has no interval, or there is one run.
    """
    quantile = float(stats.norm.ppf((1 + confidence) / 2))
    own = (((part["high"] - part["low"]) / 2 / quantile) ** 2).to_numpy(dtype=np.float64)
    count, n = len(part), part["n"].min()
    if count < 2 or n < 2 or not np.isfinite(own).all():
        return None
    of_runs, of_subjects = sd**2 / count, float(own.mean())
    if count < LEAST_RUNS:
        reach = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * of_subjects**0.5
        return mean - reach, mean + reach
    total = of_runs + of_subjects
    if not total > 0:
        return None
    df = total**2 / (of_runs**2 / (count - 1) + of_subjects**2 / (n - 1))
    reach = max(float(stats.t.ppf((1 + confidence) / 2, df)) * total**0.5, high - mean)
    return mean - reach, mean + reach


def t_interval(
    values: NDArray[np.float64], confidence: float = 0.95, rate: bool = False
) -> tuple[float, float, float, float]:
    """Mean, standard deviation (n - 1) and t-interval; NaN for what too few values leave open.

    Of rates on the logit scale (delta method), as for one model: within [0, 1]. Where a model's is
    0 or 1, which have no logit, the plain interval is cut there.
    """
    nan = float("nan")
    if len(values) < 2:
        return (float(values[0]) if len(values) else nan), nan, nan, nan
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    reach = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1)) * sd / len(values) ** 0.5
    if rate and values.min() > 0 and values.max() < 1:
        ends = special.logit(mean) + reach / (mean * (1 - mean)) * np.array([-1.0, 1.0])
        low, high = special.expit(ends)
        return mean, sd, float(low), float(high)
    if rate and values.min() >= 0 and values.max() <= 1:
        return mean, sd, max(mean - reach, 0.0), min(mean + reach, 1.0)
    return mean, sd, mean - reach, mean + reach


# -- for new patients as well ----------------------------------------------------------------


@dataclass(frozen=True)
class PairedChange:
    """Mean paired difference over seeds, and what it says of whom; p below ``LEAST_SEEDS``: NaN."""

    value: float
    sd: float  # over seeds, NaN for one
    low: float  # new seeds on *these* patients: t with S - 1 degrees of freedom
    high: float
    p: float
    low_new: float  # new seeds on *new* patients
    high_new: float
    p_new: float


def for_new_patients(gaps: Sequence[Estimate], confidence: float = 0.95) -> PairedChange:
    """Mean of paired differences, one per seed on the same patients, with both its intervals.

    D_s is the difference under seed s. On fixed patients, s_D^2 is the variance over seeds only:
    whatever all seeds share because they share the patients cancels in it. Its counterpart V is
    the variance over patients of the *mean* of the D_s, from influence values averaged over the
    seeds. By the law of total variance the mean varies with s_D^2 / S + V when seeds and
    patients are both drawn anew. The part that is neither (a seed that does better on some
    patients) enters both terms, at 1 / S: the sum errs, if at all, on the wide side. Degrees of
    freedom after Satterthwaite (1946); where these, being more than S - 1, would make the interval
    narrower than that for these patients, it is that one: new patients make nothing surer.
    """
    nan = float("nan")
    known = [gap for gap in gaps if np.isfinite(gap.value)]
    count = len(known)
    mean, sd, low, high = t_interval(np.array([gap.value for gap in known]), confidence)
    if count < 2:
        return PairedChange(mean, sd, low, high, nan, nan, nan, nan)
    parts = variance_parts(known)
    total = parts.of_runs + parts.of_patients
    if not total > 0:
        return PairedChange(mean, sd, low, high, nan, nan, nan, nan)
    reach = max(float(stats.t.ppf((1 + confidence) / 2, parts.df)) * total**0.5, high - mean)
    p, p_new = nan, float(2 * stats.t.sf(abs(mean) / total**0.5, parts.df))
    if sd > 0:
        p = float(2 * stats.t.sf(abs(mean) / parts.of_runs**0.5, count - 1))
        p_new = max(p, p_new)
    if count < LEAST_SEEDS:
        p = p_new = nan
    return PairedChange(mean, sd, low, high, p, mean - reach, mean + reach, p_new)


def compare_audits(
    audits: Mapping[tuple[str, int], Audit], baseline: str = "none", confidence: float = 0.95
) -> pd.DataFrame:
    """Method minus baseline by group, paired by seed, of audits by (method, seed)."""
    rows = []
    for method in dict.fromkeys(name for name, _ in audits if name != baseline):
        seeds = [s for name, s in audits if name == method and (baseline, s) in audits]
        if not seeds:
            continue
        pairs = [differences(audits[method, s], audits[baseline, s]) for s in seeds]
        own = audits[method, seeds[0]]
        names = {"method": method, "baseline": baseline, "metric": own.metric,
                 "features": own.features, "seeds": ",".join(map(str, seeds)),
                 "n_seeds": len(seeds)}  # fmt: skip
        for key in own.estimates:
            gaps = [pair[key] for pair in pairs]
            change = for_new_patients(gaps, confidence)
            if own.metric.startswith("es_"):  # biased: neither an interval nor a test would hold
                change = PairedChange(change.value, change.sd, *(float("nan"),) * 6)
            group = {"attribute": key[0], "level": key[1], "n": own.estimates[key].n}
            rows.append({**names, **group, **vars(change), "note": _change_note(gaps)})
    return pd.DataFrame(rows, columns=list(CHANGE_COLUMNS))


def _change_note(gaps: Sequence[Estimate]) -> str:
    """What keeps a change from having an interval or a p, and how to read those it has."""
    known = sum(bool(np.isfinite(gap.value)) for gap in gaps)
    notes = list(dict.fromkeys(gap.note for gap in gaps if gap.note))
    if known == 1:
        notes.append("one seed: comparing methods needs more seeds")
    elif known:
        notes.append(NEW_NOTE)
        notes += [FEW_SEEDS] * (known < LEAST_SEEDS)
    return "; ".join(notes)


def over_seeds(table: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """:func:`summarise_seeds` (seeds as "0,1,2"), then the single seeds where there are several."""
    parts = [summarise_seeds(table, confidence)]
    if table["seed"].nunique() > 1:
        parts += [summarise_seeds(own, confidence) for _, own in table.groupby("seed")]
    return pd.concat(parts, ignore_index=True)


def means_and_seeds(table: pd.DataFrame, keys: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows that get a dot and an interval by ``keys``, and the single seeds behind a mean."""
    mean = table["seeds"].astype(str).str.contains(",")
    averaged = mean.groupby([table[key] for key in keys]).transform("any")
    return table[mean | ~averaged], table[averaged & ~mean]


# -- the run as the unit ---------------------------------------------------------------------
# A run is everything that is random: base model, fine-tuning, sampling. Over R complete runs on
# the same patients the mean varies with V = s^2 / R + V_patients: s^2 is the variance between
# runs, and V_patients that of the mean of the runs' influence values. Fine-tunings of one base are
# *one* run in this sense: what they share doesn't show in their spread.


@dataclass(frozen=True)
class Parts:
    """Where the variance of a mean over runs comes from."""

    runs: int
    of_runs: float  # s^2 / R
    of_patients: float
    df: float  # Satterthwaite's


def variance_parts(estimates: Sequence[Estimate]) -> Parts:
    """The two parts of the variance of a mean over complete runs, and its degrees of freedom.

    The part that is neither (a run that does better on some patients) is in both, at 1 / R: the
    sum errs, if at all, on the wide side.
    """
    count = len(estimates)
    values = np.array([e.value for e in estimates])
    patients = mean_estimate(estimates)
    of_runs, of_patients = float(values.var(ddof=1)) / count, patients.standard_error**2
    total = of_runs + of_patients
    if not total > 0:
        return Parts(count, of_runs, of_patients, float("nan"))
    df = total**2 / (of_runs**2 / (count - 1) + of_patients**2 / patients.df)
    return Parts(count, of_runs, of_patients, df)


def over_runs(estimates: Sequence[Estimate]) -> Estimate:
    """Mean over complete runs on the same patients, as an estimate for new runs and new patients.

    Its influence values are those over patients, then one per run: estimates of several groups over
    the same runs share the latter, so that their differences know what a run does to both.
    Not estimable with fewer than ``LEAST_RUNS`` runs, or where one has no value.
    """
    mean, count = mean_estimate(estimates), len(estimates)
    units = len(mean.influence) + count
    if count < LEAST_RUNS:
        return not_estimable(units, mean.n, f"fewer than {LEAST_RUNS} runs")
    if not np.isfinite(mean.value):
        return replace(mean, influence=np.zeros(units))
    values = np.array([e.value for e in estimates])
    away = (values - values.mean()) / np.sqrt(count * (count - 1))
    df = variance_parts(estimates).df
    return replace(mean, influence=np.concatenate([mean.influence, away]), df=df, runs=count)


def audit_over_runs(audits: Sequence[Audit]) -> Audit:
    """Audit of the mean over complete runs on the same patients: :func:`over_runs` of each group.

    A contrast's degrees of freedom are the smaller ones of its two groups.
    """
    first = same_kind(audits, "mean over runs")
    found = {key: over_runs([one.estimates[key] for one in audits]) for key in first.estimates}
    return replace(first, estimates=found)
