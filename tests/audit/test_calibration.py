"""Calibration and underdiagnosis: against scikit-learn, statsmodels, published forms, and truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from sklearn.metrics import brier_score_loss
from statsmodels.api import Logit

from fairdiff_lib.audit.audit import Estimator, audit, mean_metric
from fairdiff_lib.audit.classifiers import (
    believed,
    brier_metric,
    calibration_intercept_metric,
    calibration_slope_metric,
    ece_metric,
    fnr_metric,
    squared_calibration_error,
)
from fairdiff_lib.audit.contrasts import chance_gap
from fairdiff_lib.audit.estimate import Estimate, Groups, group_units
from fairdiff_lib.settings.errors import InputError

LEVELS = {"sex": ("Female", "Male")}


def cohort(n: int, images: int = 1) -> Groups:
    """n subjects, the first half female."""
    table = pd.DataFrame(
        {
            "subject": np.repeat(np.arange(n), images),
            "sex": np.repeat(np.where(np.arange(n) < n // 2, "Female", "Male"), images),
        }
    )
    return group_units(table, LEVELS)


def draw(n: int, seed: int = 0, slope: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes of a logistic model, and scores whose logits are ``1 / slope`` times too large."""
    rng = np.random.default_rng(seed)
    z = 1.5 * rng.normal(size=n)
    truth = (rng.random(n) < expit(z)).astype(np.int64)
    score = expit(z / slope)
    return truth, np.column_stack([1 - score, score])


def overall(metric: Estimator, groups: Groups) -> Estimate:
    return metric(groups)[0]


def test_brier_score_is_scikit_learns() -> None:
    truth, scores = draw(200)
    two = overall(brier_metric(truth, scores), cohort(200))
    assert two.value == pytest.approx(brier_score_loss(truth, scores[:, 1]), abs=1e-12)
    rng = np.random.default_rng(1)
    three, truth = rng.dirichlet(np.ones(3), 200), rng.integers(3, size=200)
    found = overall(brier_metric(truth, three), cohort(200))
    assert found.value == pytest.approx(brier_score_loss(truth, three), abs=1e-12)
    assert found.interval()[0] < found.value < found.interval()[1]


# -- expected calibration error --------------------------------------------------------------


def squared(truth: np.ndarray, score: np.ndarray, place: np.ndarray) -> float:
    rows = np.arange(len(truth))
    found = squared_calibration_error(score - truth, place, rows, rows, np.ones((1, len(rows))))
    return float(found[0])


def test_debiased_error_is_the_published_one_where_bins_have_one_probability() -> None:
    """Broecker 2012; Ferro and Fricker 2012: the plug-in less y (1 - y) / (n - 1) in each bin."""
    rng = np.random.default_rng(2)
    place = rng.integers(4, size=120)
    score = np.array([0.1, 0.3, 0.6, 0.9])[place]
    truth = (rng.random(120) < score**2).astype(float)
    expected = 0.0
    for k in range(4):
        y, n = truth[place == k].mean(), int((place == k).sum())
        expected += n / 120 * ((score[place == k][0] - y) ** 2 - y * (1 - y) / (n - 1))
    assert squared(truth, score, place) == pytest.approx(expected, abs=1e-12)


def test_debiased_error_does_not_depend_on_n_and_the_plug_in_does() -> None:
    """Calibrated scores: mean 0 at n = 60 and at n = 600; the plug-in value says 0.02."""
    for n in (60, 600):
        found, plain = [], []
        for seed in range(300):
            truth, scores = draw(n, seed)
            place = np.minimum((scores[:, 1] * 10).astype(int), 9)
            found.append(squared(truth, scores[:, 1], place))
            gap = [(scores[:, 1] - truth)[place == k] for k in np.unique(place)]
            plain.append(sum(len(g) / n * g.mean() ** 2 for g in gap))
        error = np.std(found) / 300**0.5
        assert abs(np.mean(found)) < 4 * error
        assert np.mean(plain) > 10 * error


def test_images_of_one_subject_are_no_pair() -> None:
    truth, scores = draw(80)
    single = overall(ece_metric(truth, scores), cohort(80))
    twice = overall(ece_metric(np.repeat(truth, 2), np.repeat(scores, 2, axis=0)), cohort(80, 2))
    assert twice.value == pytest.approx(single.value, abs=1e-12)
    assert twice.interval() == pytest.approx(single.interval(), abs=1e-12)


@pytest.mark.slow
def test_ece_interval_covers_and_finds_what_is_miscalibrated() -> None:
    truth, scores = draw(200_000, seed=999, slope=0.5)
    excess = scores[:, 1] - truth
    place = np.searchsorted(np.quantile(scores[:, 1], np.arange(1, 10) / 10), scores[:, 1])
    binned = [(place == k).mean() * excess[place == k].mean() ** 2 for k in range(10)]
    whole, hits, groups = np.sqrt(np.sum(binned)), [], cohort(200)
    for seed in range(150):
        low, high = overall(ece_metric(*draw(200, seed, 0.5), replicates=200), groups).interval()
        hits.append(low <= whole <= high)
    assert whole > 0.1
    assert np.mean(hits) >= 0.93  # 300 runs gave 0.99


def test_a_calibrated_group_has_an_ece_of_zero_and_no_contrast() -> None:
    for seed in range(20):
        found = overall(ece_metric(*draw(200, seed)), cohort(200))
        assert found.interval()[0] == 0
        if found.value == 0:
            assert np.isnan(found.p_value())
            assert found.interval()[1] > 0.01
            assert "no contrasts" in found.note
            return
    pytest.fail("20 calibrated samples, all above chance")


def test_top_label_is_judged_where_there_are_several_classes() -> None:
    scores = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    sure, right = believed(np.array([0, 1]), scores)
    np.testing.assert_array_equal(sure, [0.7, 0.6])
    np.testing.assert_array_equal(right, [1, 0])


def test_ece_needs_pairs_within_bins() -> None:
    found = overall(ece_metric(*draw(19)), cohort(19))
    assert found.note == "not estimable: fewer than 20 subjects"


# -- slope and intercept ---------------------------------------------------------------------


def test_slope_and_its_error_are_statsmodels_clustered() -> None:
    truth, scores = draw(300)
    truth, scores = np.repeat(truth, 2), np.repeat(scores, 2, axis=0)
    truth[1::2] = draw(300, seed=5)[0]  # a subject's second image
    design = np.column_stack([np.ones(600), logit(scores[:, 1])])
    for metric, fit in (
        (calibration_slope_metric, Logit(truth, design)),
        (calibration_intercept_metric,
         Logit(truth, np.ones((600, 1)), offset=design[:, 1])),
    ):  # fmt: skip
        expected = fit.fit(
            disp=False, cov_type="cluster",
            cov_kwds={"groups": np.repeat(np.arange(300), 2), "use_correction": False},
        )  # fmt: skip
        found = overall(metric(truth, scores), cohort(300, 2))
        assert found.value == pytest.approx(expected.params[-1], abs=1e-6)
        assert found.standard_error == pytest.approx(
            expected.bse[-1] * (300 / 299) ** 0.5, rel=1e-6
        )


def test_scores_that_are_too_extreme_have_a_slope_below_one() -> None:
    truth, scores = draw(2000, slope=0.5)
    groups = cohort(2000)
    slope = overall(calibration_slope_metric(truth, scores), groups)
    assert slope.interval()[0] < 0.5 < slope.interval()[1] < 0.7
    low = scores.copy()
    low[:, 1] = expit(logit(scores[:, 1]) - 1)
    intercept = overall(calibration_intercept_metric(truth, low), groups)
    assert intercept.interval()[0] > 0.3  # too low scores


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("separated", "the scores separate the classes"),
        ("equal", "all scores equal"),
        ("one class", "one class only"),
        ("few", "fewer than 10 subjects"),
    ],
)
def test_a_slope_that_does_not_exist_is_nan_with_its_reason(case: str, words: str) -> None:
    n = 9 if case == "few" else 40
    truth, score = np.arange(n) % 2, np.linspace(0.1, 0.9, n)
    if case == "separated":
        truth = (score > 0.5).astype(np.int64)
    elif case == "equal":
        score = np.full(n, 0.5)
    elif case == "one class":
        truth = np.zeros(n, dtype=np.int64)
    scores = np.column_stack([1 - score, score])
    found = overall(calibration_slope_metric(truth, scores), cohort(n))
    assert np.isnan(found.value)
    assert words in found.note


def test_certain_scores_of_zero_and_one_are_kept_finite() -> None:
    truth, scores = draw(100)
    scores[:3] = [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    for metric in (calibration_slope_metric, calibration_intercept_metric):
        assert np.isfinite(overall(metric(truth, scores), cohort(100)).value)


def test_a_slope_of_three_classes_is_refused() -> None:
    with pytest.raises(InputError, match="3 classes; expected two"):
        calibration_slope_metric(np.zeros(5, int), np.ones((5, 3)) / 3)


# -- underdiagnosis --------------------------------------------------------------------------


def test_fnr_is_over_positives_and_can_be_audited() -> None:
    rng = np.random.default_rng(6)
    truth, female = rng.integers(2, size=400), np.arange(400) < 200
    predicted = np.where((truth == 1) & (rng.random(400) < np.where(female, 0.5, 0.1)), 0, truth)
    found = audit(fnr_metric(truth, predicted), cohort(400), LEVELS, metric="fnr")
    own = found.estimates["sex", "Female"]
    assert own.n == int(truth[female].sum())
    assert own.value == pytest.approx((predicted[female & (truth == 1)] == 0).mean())
    assert found.contrasts.iloc[0]["p"] < 1e-6


def test_groups_without_positives_say_so() -> None:
    truth = np.where(np.arange(60) < 30, 0, 1)  # no sick woman
    truth[:3] = [1, 0, 0]
    metric = fnr_metric(truth, truth)
    assert "fewer than 10 positive subjects" in metric(cohort(60))[1].note
    truth[0] = 0
    assert fnr_metric(truth, truth)(cohort(60))[1].note.endswith("no positive subject")


def test_chance_gap_is_what_equal_groups_show() -> None:
    """95% of fresh cohorts without disparity lie below it; levels of 20, 60 and 120 subjects."""
    rng, share = np.random.default_rng(7), []
    level = np.repeat([0, 1, 2], [20, 60, 120])
    for _ in range(300):
        values = (rng.random(200) < 0.3).astype(float)
        parts = [np.flatnonzero(level == k) for k in range(3)]
        unit = np.arange(200)
        members = np.stack([np.isin(unit, own) for own in (unit, *parts)], axis=1)
        keys = (("overall", "all"), *(("level", str(k)) for k in range(3)))
        whole, *levels = mean_metric(values)(Groups(unit, keys, members))
        gap = np.ptp([one.value for one in levels])
        share.append(gap < chance_gap(whole, levels, draws=2000))
    assert 0.91 <= np.mean(share) <= 0.98  # Monte Carlo sd 0.013
