"""Over complete runs: intervals speak of another run on other patients."""

from __future__ import annotations

import numpy as np
import pytest

from fairdiff_lib.audit.audit import Audit
from fairdiff_lib.audit.contrasts import Design
from fairdiff_lib.audit.estimate import OVERALL, Estimate, difference, mean_estimate
from fairdiff_lib.audit.seeds import audit_over_runs, over_runs, variance_parts
from fairdiff_lib.settings.errors import InputError

PATIENTS, RUNS = 60, 5


def study(rng: np.random.Generator, of_runs: float = 0.3) -> list[Estimate]:
    """Means over patients of a score of 0, in runs that shift everybody's."""
    patients = rng.normal(size=PATIENTS)
    found = []
    for _ in range(RUNS):
        values = patients + rng.normal(scale=0.5, size=PATIENTS) + rng.normal(scale=of_runs)
        scale = np.sqrt(PATIENTS * (PATIENTS - 1))
        influence = (values - values.mean()) / scale
        found.append(Estimate(float(values.mean()), influence, PATIENTS, PATIENTS - 1.0))
    return found


def test_variance_is_that_between_runs_and_that_over_patients() -> None:
    runs = study(np.random.default_rng(0))
    mean, parts = over_runs(runs), variance_parts(runs)
    values = np.array([run.value for run in runs])
    patients = mean_estimate(runs)
    assert mean.value == pytest.approx(values.mean())
    expected = values.var(ddof=1) / RUNS + patients.standard_error**2
    assert mean.standard_error**2 == pytest.approx(expected)
    assert parts.of_runs + parts.of_patients == pytest.approx(expected)
    assert RUNS - 1 < mean.df < PATIENTS
    assert len(mean.influence) == PATIENTS + RUNS


def test_what_a_run_does_to_both_groups_cancels_in_their_difference() -> None:
    rng = np.random.default_rng(1)
    runs = study(rng, of_runs=3.0)
    shifted = [Estimate(r.value + 1, r.influence[::-1], r.n, r.df) for r in runs]
    gap = difference(over_runs(shifted), over_runs(runs))
    assert gap.value == pytest.approx(1)
    assert gap.standard_error < 0.5 < over_runs(runs).standard_error
    single = [difference(a, b) for a, b in zip(shifted, runs, strict=True)]
    assert gap.standard_error == pytest.approx(over_runs(single).standard_error)


def test_two_runs_are_no_sample_and_audits_must_match() -> None:
    runs = study(np.random.default_rng(2))
    assert "fewer than 3 runs" in over_runs(runs[:2]).note
    lost = Estimate(float("nan"), np.zeros(PATIENTS), 5, float("nan"), "not estimable: few")
    assert over_runs([*runs[:4], lost]).note == "not estimable: few"
    audits = [Audit("kid", {OVERALL: run, ("race", "a"): run, ("race", "b"): run},
                    Design({"race": ("a", "b")})) for run in runs]  # fmt: skip
    found = audit_over_runs(audits)
    assert found.overall.standard_error == pytest.approx(over_runs(runs).standard_error)
    assert len(found.contrasts) == 1
    other = Audit("fid", audits[0].estimates, audits[0].design)
    with pytest.raises(InputError, match="metric"):
        audit_over_runs([*audits, other])
    with pytest.raises(InputError, match="no audit"):
        audit_over_runs([])


@pytest.mark.slow
@pytest.mark.parametrize("of_runs", [0.0, 0.1, 0.5])
def test_intervals_cover_where_those_of_patients_alone_do_not(of_runs: float) -> None:
    rng, repeats = np.random.default_rng(3), 1500
    held, alone = 0, 0
    for _ in range(repeats):
        runs = study(rng, of_runs)
        low, high = over_runs(runs).interval()
        held += low <= 0 <= high
        low, high = mean_estimate(runs).interval()
        alone += low <= 0 <= high
    assert 0.935 <= held / repeats <= 0.985, held / repeats
    if of_runs == 0.5:
        assert alone / repeats < 0.8
