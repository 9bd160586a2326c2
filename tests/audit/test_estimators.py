"""The cluster bootstrap and the jackknife of weighted rows: against scipy, and against truth."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
from scipy import stats

from fairdiff_lib.audit import estimators
from fairdiff_lib.audit.estimate import difference
from fairdiff_lib.audit.estimators import weighted_auc


def everyone(n: int) -> tuple[np.ndarray, np.ndarray]:
    """One unit per row, all of them members."""
    return np.arange(n), np.ones(n, dtype=bool)


def mean_of(values: np.ndarray) -> estimators.Weighted:
    def mean(rows: np.ndarray, times: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # a resample without any row
            return np.asarray(times @ values[rows] / times.sum(axis=1))

    return mean


def test_bca_limits_are_scipys_for_the_same_replicates() -> None:
    values = np.random.default_rng(0).exponential(size=40)
    ours = estimators.bootstrap_bca(mean_of(values), *everyone(40), replicates=500, seed=1)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=500, method="BCa", rng=2)
    limits = estimators.bca_limits(
        values.mean(), theirs.bootstrap_distribution, values - values.mean()
    )
    assert limits == pytest.approx(tuple(theirs.confidence_interval), rel=1e-9)
    assert ours.interval() == pytest.approx(limits, rel=0.1)  # other replicates
    assert ours.limits is not None
    assert ours.limits(0.5)[0] > ours.interval()[0]


def test_bca_is_skewed_where_the_sample_is() -> None:
    values = np.random.default_rng(0).exponential(size=40)
    found = estimators.bootstrap_bca(mean_of(values), *everyone(40), replicates=1000)
    low, high = found.interval()
    assert high - found.value > 1.2 * (found.value - low)
    symmetric = dataclasses.replace(found, limits=None).interval()
    assert found.value - symmetric[0] == pytest.approx(symmetric[1] - found.value)


def test_bca_covers_a_macro_auc() -> None:
    """Three classes, 60 subjects: 95% intervals hold the truth of a large sample."""

    def draw(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        truth = rng.integers(3, size=n)
        return truth, rng.normal(size=(n, 3)) + 1.2 * np.eye(3)[truth]

    whole = weighted_auc(*draw(200_000, 999), np.ones((1, 200_000)))[0]
    hits = []
    for seed in range(150):
        truth, scores = draw(60, seed)

        def auc(rows: np.ndarray, times: np.ndarray, t: np.ndarray = truth) -> np.ndarray:
            return weighted_auc(t[rows], scores[rows], times)  # noqa: B023

        low, high = estimators.bootstrap_bca(auc, *everyone(60), replicates=200).interval()
        hits.append(low <= whole <= high)
    assert 0.90 <= np.mean(hits) <= 0.99  # Monte Carlo sd 0.018; 400 runs gave 0.96


def test_images_of_one_subject_are_drawn_together() -> None:
    values = np.random.default_rng(2).normal(size=30)
    unit, member = everyone(30)
    single = estimators.bootstrap_bca(mean_of(values), unit, member)
    tripled = estimators.bootstrap_bca(mean_of(np.repeat(values, 3)), np.repeat(unit, 3), member)
    assert tripled.interval() == pytest.approx(single.interval())
    assert tripled.standard_error == pytest.approx(single.standard_error)
    assert tripled.n == single.n == 30


def test_weighted_jackknife_of_a_mean_is_the_mean_and_contrasts_are_welch() -> None:
    values = np.random.default_rng(3).normal(size=80) + np.arange(80) // 40
    unit, member = np.arange(80), np.arange(80) < 40
    pairs = [
        (estimators.bootstrap_bca(mean_of(values), unit, own, replicates=50),
         estimators.mean_of_rows(values, unit, own))
        for own in (member, ~member)
    ]  # fmt: skip
    for found, exact in pairs:
        assert found.value == pytest.approx(exact.value)
        assert found.standard_error == pytest.approx(exact.standard_error, rel=1e-9)
    ours, exact = (difference(pairs[0][k], pairs[1][k]) for k in (0, 1))
    assert ours.limits is None  # a combination has the t-interval of its influence values
    assert ours.p_value() == pytest.approx(exact.p_value(), rel=1e-9)


def test_resamples_without_a_class_are_counted_and_left_out() -> None:
    truth, score = np.arange(30) < 2, np.linspace(0, 1, 30)[::-1].copy()
    score[1] = 0.4
    scores = np.column_stack([1 - score, score])

    def auc(rows: np.ndarray, times: np.ndarray) -> np.ndarray:
        return weighted_auc(truth[rows].astype(int), scores[rows], times)

    found = estimators.bootstrap_bca(auc, *everyone(30), replicates=200)
    assert np.isfinite(found.interval()).all()
    assert "of 200 resamples undefined" in found.note


@pytest.mark.parametrize(
    ("values", "n", "words"),
    [
        (np.arange(9.0), 9, "fewer than 10 subjects"),
        (np.full(20, np.nan), 20, "undefined for these subjects"),
        (np.ones(20), 20, "the same without any one subject"),
    ],
)
def test_what_cannot_be_estimated_says_why(values: np.ndarray, n: int, words: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = estimators.bootstrap_bca(mean_of(values), *everyone(n), replicates=20)
    assert words in found.note
    assert np.isnan(found.interval()).all()


def test_a_value_that_hangs_on_one_subject_has_no_interval() -> None:
    def of_the_first(rows: np.ndarray, times: np.ndarray) -> np.ndarray:
        return np.where(times[:, 0] > 0, 1.0, np.nan)

    found = estimators.bootstrap_bca(of_the_first, *everyone(20), replicates=20)
    assert found.value == 1
    assert "undefined without one of the subjects" in found.note
    assert np.isnan(found.interval()).all()
