"""Shrinkage: closer to the truth than the raw values, with intervals that hold it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.meta_analysis import combine_effects

from fairdiff_lib.audit.audit import LEAST_GROUPS, crossed, shrink
from fairdiff_lib.settings.errors import InputError


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0, 3.0])
def test_shrunken_values_are_nearer_and_their_intervals_cover(spread: float) -> None:
    rng, raw, own, covered = np.random.default_rng(0), [], [], []
    for _ in range(300):
        variance = rng.choice([0.2, 1.0, 3.0], 12)
        truth = spread * rng.normal(size=12)
        seen = truth + np.sqrt(variance) * rng.normal(size=12)
        found = shrink(seen, variance)
        raw.append(np.mean((seen - truth) ** 2))
        own.append(np.mean((found.value - truth) ** 2))
        covered.append(np.mean((found.low < truth) & (truth < found.high)))
    assert np.mean(own) < 0.9 * np.mean(raw)
    assert np.mean(covered) >= 0.935  # Monte Carlo sd about 0.005


def test_the_noisiest_group_moves_most_and_nobody_leaves_the_range() -> None:
    values, variances = [0.1, 0.2, 0.3, 0.9, 0.2], [0.01, 0.01, 0.01, 0.30, 0.01]
    found = shrink(values, variances)
    moved = np.abs(found.value - values)
    assert int(moved.argmax()) == 3
    assert min(values) <= found.value.min() and found.value.max() <= max(values)
    assert (
        found.between
        == combine_effects(np.array(values), np.array(variances), method_re="iterated").tau2
    )


def test_groups_without_an_estimate_stay_nan_and_too_few_are_not_shrunk() -> None:
    found = shrink([0.1, np.nan, 0.2, 0.3, 0.4], [0.01] * 5)
    np.testing.assert_array_equal(np.isnan(found.value), [False, True, False, False, False])
    known = shrink([0.1, 0.2, 0.3, 0.4], [0.01] * 4)
    np.testing.assert_allclose(found.value[[0, 2, 3, 4]], known.value)
    few = shrink([0.1] * (LEAST_GROUPS - 1), [0.01] * (LEAST_GROUPS - 1))
    assert np.isnan(few.value).all() and np.isnan(few.low).all()
    with pytest.raises(InputError, match="no positive variance"):
        shrink([0.1, 0.2, 0.3, 0.4], [0.01, 0.0, 0.01, 0.01])


def test_crossing_keeps_combinations_that_nobody_has() -> None:
    table = pd.DataFrame({"sex": ["Female", "Male"], "age": ["old", "old"]})
    wide, levels = crossed(table, {"sex": ("Female", "Male"), "age": ("young", "old")})
    assert wide["sex x age"].tolist() == ["Female, old", "Male, old"]
    assert levels == {"sex x age": ["Female, young", "Female, old", "Male, young", "Male, old"]}
