"""The run as the unit: what another run, on other patients, would give.

A run is everything that is random: base model, fine-tuning, sampling. Over R complete runs on the
same patients the mean varies with V = s^2 / R + V_patients: s^2 is the variance between runs, and
V_patients that of the mean of the runs' influence values. Fine-tunings of one base are *one* run in
this sense: what they share doesn't show in their spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fairdiff_lib.audit.audit import Audit, same_kind
from fairdiff_lib.audit.estimate import Estimate, mean_estimate, not_estimable
from fairdiff_lib.settings.errors import InputError

LEAST_RUNS = 3  # two say too little about a variance: t with 1 degree of freedom


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
    return replace(mean, influence=np.concatenate([mean.influence, away]), df=df)


def audit_over_runs(audits: Sequence[Audit]) -> Audit:
    """Audit of the mean over complete runs on the same patients: :func:`over_runs` of each group.

    A contrast's degrees of freedom are the smaller ones of its two groups.
    """
    if not audits:
        raise InputError("mean over runs: no audit; expected one per run")
    first = same_kind(audits, "mean over runs")
    found = {key: over_runs([one.estimates[key] for one in audits]) for key in first.estimates}
    return replace(first, estimates=found)
