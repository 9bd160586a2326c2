"""Differences of two rates: their interval, and the p that belongs to it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fairdiff_lib.audit.estimate import Estimate, difference, mean_estimate
from fairdiff_lib.audit.estimators import auc, mean_of_rows


def _rate(successes: int, n: int, start: int, units: int) -> Estimate:
    """Accuracy of ``n`` subjects, the first of which is number ``start`` of all."""
    values = np.full(units, np.nan)
    values[start : start + n] = np.arange(n) < successes
    member = np.isfinite(values)
    return mean_of_rows(values, np.arange(units), member, bounded=True)


def test_interval_of_a_difference_of_rates_and_its_p_agree() -> None:
    for successes in range(12, 30):
        gap = difference(_rate(successes, 40, 0, 240), _rate(100, 200, 40, 240))
        low, high = gap.interval(0.95)
        assert low < gap.value < high
        assert (gap.p_value() < 0.05) == (low > 0 or high < 0)
        assert gap.interval(1 - gap.p_value())[0 if gap.value > 0 else 1] == pytest.approx(
            0, abs=1e-6
        )


def test_interval_of_a_difference_of_rates_stays_within_what_is_possible() -> None:
    gap = difference(_rate(39, 40, 0, 240), _rate(5, 200, 40, 240))
    assert gap.value + gap.standard_error * 1.96 > 1
    assert gap.interval(0.95)[1] < 1


def test_equivalence_of_rates_is_the_90_percent_interval_within_the_margin() -> None:
    gap = difference(_rate(480, 600, 0, 1600), _rate(790, 1000, 600, 1600))
    for margin in (0.01, 0.03, 0.05, 0.1):
        low, high = gap.interval(0.9)
        assert (gap.p_equivalence(margin) < 0.05) == (-margin < low and high < margin)


def test_an_estimate_without_limits_has_no_p() -> None:
    """As of a bootstrap whose resamples all lie on one side: it had a p of 2e-14."""
    nowhere = (float("nan"), float("nan"))
    found = replace(_rate(30, 40, 0, 240), limits=lambda confidence: nowhere)
    gap = difference(found, _rate(100, 200, 40, 240))
    for one in (found, gap):
        assert one.standard_error > 0
        assert np.isnan([one.p_value(), one.p_above(), one.p_equivalence(0.9)]).all()


def test_auc_of_small_groups_keeps_its_error_rate() -> None:
    """A third of 36 subjects ill against 400: Welch's interval alarms in over 9% of audits."""
    rng, alarms, welch = np.random.default_rng(7), 0, 0
    units, audits = 436, 600
    small = np.arange(units) < 36
    truth = np.concatenate([np.arange(36) < 12, np.arange(400) < 130])
    for _ in range(audits):
        score = rng.standard_normal(units) + 1.3 * truth
        parts = [auc(truth, score, np.arange(units), member) for member in (small, ~small)]
        gap = difference(*parts)
        plain = Estimate(gap.value, gap.influence, gap.n, gap.df)
        alarms += gap.p_value() < 0.05
        welch += plain.p_value() < 0.05
    assert alarms / audits < 0.07
    assert welch > alarms


def test_a_mean_over_models_keeps_the_bounds_of_its_parts() -> None:
    influence = np.array([0.05, -0.05, 0.03])
    small = Estimate(0.02, influence, 20, 19.0, bounds=(0.0, 1.0))
    other = replace(small, value=0.04, influence=influence[::-1])
    mean = mean_estimate([small, other])
    assert mean.interval()[0] == 0 < mean.interval()[1]
    assert difference(mean, small).interval()[0] < 0  # a difference may be negative
