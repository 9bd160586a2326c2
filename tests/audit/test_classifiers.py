"""Classifier fairness: equal to the released numbers, and right where those are wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference
from scipy import optimize, stats
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score

from fairdiff_lib.audit import released
from fairdiff_lib.audit.audit import audit, mean_metric, means_over_seeds
from fairdiff_lib.audit.classifiers import (
    COLUMNS,
    calibration_intercept_metric,
    calibration_slope_metric,
    classification_audits,
    classification_contrasts,
    classification_table,
    contrasted_audits,
    es_by_chance,
    es_estimate,
    scored,
)
from fairdiff_lib.audit.contrasts import EXPLORATORY, SPREAD, dpd, eod, equity_scaled
from fairdiff_lib.audit.estimate import Groups, group_units
from fairdiff_lib.audit.estimators import jackknife_units, weighted_auc
from fairdiff_lib.settings.errors import InputError

SHARED = Path(os.environ.get("FAIRDIFF_SHARED", Path(__file__).parents[3] / "shared"))
ORACLE = SHARED / "oracles" / "classification_metrics.json"
NAMES = {
    "race": ("Asian", "Black", "White"),
    "sex": ("Female", "Male"),
    "ethnicity": ("Non-Hispanic", "Hispanic"),
}
LABELS = {"dataset": "toy", "source": "real", "method": "real", "seed": 0, "classifier": "net"}


def tidy(scores: np.ndarray, truth: np.ndarray, condition: str = "c") -> pd.DataFrame:
    """Predictions as a row per image and level; levels are named L0, L1, ..."""
    n, k = scores.shape
    images = np.array([f"i{i:04d}" for i in range(n)])
    return pd.DataFrame(
        {
            "image": np.repeat(images, k),
            "subject": np.repeat(images, k),
            "condition": condition,
            "truth": np.repeat([f"L{t}" if t >= 0 else "unknown" for t in truth], k),
            "level": np.tile([f"L{j}" for j in range(k)], n),
            "probability": scores.ravel(),
        }
    )


def people(codes: dict[str, Any]) -> pd.DataFrame:
    """Cohort table with named levels."""
    table = {name: np.array(NAMES[name])[np.array(code)] for name, code in codes.items()}
    n = len(next(iter(table.values())))
    return pd.DataFrame({"image": [f"i{i:04d}" for i in range(n)], **table})


def oracle() -> list[dict[str, Any]]:
    if not ORACLE.exists():
        pytest.skip(f"no oracle at {ORACLE.name}: the shared folder is not beside the repository")
    cases: list[dict[str, Any]] = json.loads(ORACLE.read_text())
    return cases


def test_equal_to_the_released_functions() -> None:
    """To 1e-9, through the whole table."""
    compared = 0
    for case in oracle():
        truth, scores = np.array(case["y_true"]), np.array(case["y_score"])
        if scores.ndim == 1:
            scores = np.column_stack([1 - scores, scores])
        table = classification_table(
            tidy(scores, truth), people(case["groups"]), NAMES, labels=LABELS, bootstrap=20
        ).set_index(["attribute", "level", "metric"])["value"]
        expected = case["expected"]
        for metric in ("accuracy", "auc"):
            assert table["overall", "all", metric] == pytest.approx(expected[metric], abs=1e-9)
        for attribute, wanted in expected["attributes"].items():
            by_level = wanted.pop("group_auc")
            for level, value in zip(NAMES[attribute], by_level, strict=True):
                assert table[attribute, level, "auc"] == pytest.approx(value, abs=1e-9)
            for metric, value in wanted.items():
                assert table[attribute, "all", metric] == pytest.approx(value, abs=1e-9)
                compared += 1
            if scores.shape[1] == 2:  # nothing is swapped: the corrected form is the same
                for metric in ("dpd", "eod"):
                    assert table[attribute, "all", metric] == pytest.approx(
                        wanted[f"{metric}_as_released"]
                    )
    assert compared


def test_parity_equals_fairlearn_with_arguments_the_right_way_round() -> None:
    rng = np.random.default_rng(0)
    truth, codes = rng.integers(3, size=300), rng.integers(2, size=300)
    predicted = np.where(rng.random(300) < 0.6, truth, rng.integers(3, size=300))
    for ours, theirs in (
        (dpd(predicted, codes, 3), demographic_parity_difference),
        (eod(truth, predicted, codes, 3), equalized_odds_difference),
    ):
        each = [theirs(truth == k, predicted == k, sensitive_features=codes) for k in range(3)]
        assert ours == pytest.approx(np.mean(each), abs=1e-12)


def test_as_released_equals_fairlearn_with_its_arguments_swapped() -> None:
    rng = np.random.default_rng(3)
    truth, codes = (
        rng.integers(3, size=60),
        np.where(np.arange(60) < 4, 2, rng.integers(2, size=60)),
    )
    predicted = np.where(truth == 2, 0, truth)  # nobody is called the third
    for own, theirs in (
        (released.dpd_as_released, demographic_parity_difference),
        (released.eod_as_released, equalized_odds_difference),
    ):
        each = [theirs(predicted == k, truth == k, sensitive_features=codes) for k in range(3)]
        assert own(truth, predicted, codes, 3) == pytest.approx(np.mean(each), abs=1e-12)
        plain = theirs(truth % 2, predicted % 2, sensitive_features=codes)
        assert own(truth % 2, predicted % 2, codes, 2) == pytest.approx(plain, abs=1e-12)


def test_released_dpd_does_not_see_the_predictions() -> None:
    """Fault E2: with three classes it stays the same whatever is predicted."""
    rng = np.random.default_rng(1)
    truth, codes = rng.integers(3, size=300), rng.integers(2, size=300)
    biased = np.where(codes == 1, 0, truth)
    assert dpd(biased, codes, 3) > 0.3
    as_released = released.dpd_as_released
    assert as_released(truth, biased, codes, 3) == as_released(truth, truth, codes, 3)


def test_group_without_cases_does_not_count_as_a_rate_of_zero() -> None:
    truth = np.array([1, 1, 0, 0, 1, 1, 0, 0, 0, 0])
    codes = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
    assert eod(truth, truth, codes, 2) == 0
    assert np.isnan(eod(truth[4:], truth[4:], codes[4:], 2)) == np.isnan(
        eod(truth[:4], truth[:4], codes[:4], 2)
    )


def test_weighted_auc_equals_repeating_rows() -> None:
    rng = np.random.default_rng(2)
    truth, scores = rng.integers(3, size=60), np.round(rng.random((60, 3)), 1)
    weights = rng.integers(3, size=(4, 60))
    found = weighted_auc(truth, scores, weights.astype(float))
    for value, times in zip(found, weights, strict=True):
        rows = np.repeat(np.arange(60), times)
        each = [roc_auc_score(truth[rows] == k, scores[rows, k]) for k in range(3)]
        assert value == pytest.approx(np.mean(each), abs=1e-12)


def simple(n: int = 300, seed: int = 3) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions that are worse for Black subjects, and the cohort."""
    rng = np.random.default_rng(seed)
    codes = {"race": rng.choice(3, n, p=[0.2, 0.35, 0.45]), "sex": rng.integers(2, size=n)}
    truth = rng.integers(2, size=n)
    signal = np.where(codes["race"] == 1, 0.0, 2.0)
    score = 1 / (1 + np.exp(-(signal * (2 * truth - 1) + rng.normal(size=n))))
    return tidy(np.column_stack([1 - score, score]), truth), people(codes)


ATTRIBUTES = {name: NAMES[name] for name in ("race", "sex")}


def contrasts(predictions: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    audits = contrasted_audits(predictions, table, ATTRIBUTES, labels=LABELS)
    return classification_contrasts(audits)


def test_a_mean_over_seeds_counts_its_patients_once() -> None:
    """The same model under three seeds says as much as once: neither effect nor error changes."""
    audits = contrasted_audits(*simple(), ATTRIBUTES, labels={**LABELS, "seed": 0})
    thrice = [({**labels, "seed": seed}, one) for seed in range(3) for labels, one in audits]
    found = classification_contrasts(means_over_seeds(thrice))
    once = classification_contrasts(means_over_seeds(audits))
    assert set(found["seeds"]) == {"0,1,2"} and set(once["seeds"]) == {"0"}
    names = ["value", "low", "high", "p"]
    np.testing.assert_allclose(found[names], once[names], rtol=1e-9)


def test_contrasts_find_the_group_the_classifier_fails() -> None:
    found = contrasts(*simple())
    rows = found[found["level"] != SPREAD].set_index(["metric", "level"])
    for metric, sign in (("auc", -1), ("accuracy", -1), ("fnr", 1), ("brier", 1)):
        assert sign * rows.loc[(metric, "Black"), "value"] > 0.1
        assert rows.loc[(metric, "Black"), "p_adjusted"] < 0.01
        assert (rows.loc[metric].drop(index="Black")["p"] > 0.01).all()
    assert set(found["condition"]) == {"c"}
    assert set(rows["role"]) == {EXPLORATORY}


def test_both_conditions_are_one_exploratory_family() -> None:
    first, table = simple()
    both = pd.concat([first, simple(seed=4)[0].assign(condition="d")])
    found = contrasts(both, table)
    rest = found[(found["level"] != SPREAD) & found["p"].notna()]
    assert set(rest["condition"]) == {"c", "d"} and set(rest["role"]) == {EXPLORATORY}
    expected = stats.false_discovery_control(rest["p"])
    np.testing.assert_allclose(rest["p_adjusted"], expected, rtol=1e-9)


def test_table_has_n_everywhere_and_intervals_where_they_are_valid() -> None:
    table = classification_table(*simple(), ATTRIBUTES, labels=LABELS, bootstrap=50)
    assert list(table.columns) == [*LABELS, *COLUMNS]
    assert (table["n"] > 0).all()
    rows = table.set_index(["attribute", "metric"]).sort_index()
    es = rows.loc[[("race", "es_auc")]].iloc[0]
    assert np.isnan([es["low"], es["high"]]).all() and "chance alone gives 0." in es["note"]
    for metric in ("dpd", "eod", "psd_max"):
        assert rows.loc[[("race", metric)]]["low"].isna().all()
        assert "description" in rows.loc[[("race", metric)]]["note"].iloc[0]


def test_equity_scaled_error_is_the_spread_over_fresh_cohorts() -> None:
    values, errors, race = [], [], {"race": NAMES["race"]}
    for seed in range(100):
        data = scored(*simple(seed=seed), "c", race)
        auc = classification_audits(data, race, names=("auc",))["auc"]
        found = es_estimate(auc, "race")
        if seed == 0:
            scaled = auc.summary.set_index("metric").loc["es_auc", "value"]
            assert found.value == pytest.approx(scaled, abs=1e-12)
        values.append(found.value)
        errors.append(found.standard_error)
    assert np.nanmean(errors) == pytest.approx(np.std(values), rel=0.2)  # sd of 100: 7%


def test_equity_scaled_error_is_the_jackknifes() -> None:
    race = {"race": NAMES["race"]}
    data = scored(*simple(480), "c", race)
    accuracy = classification_audits(data, race, names=("accuracy",))["accuracy"]
    correct = (data.truth == data.predicted).astype(float)
    codes = data.codes("race", NAMES["race"])

    def scaled(rows: np.ndarray) -> float:
        levels = [correct[rows][codes[rows] == k].mean() for k in range(3)]
        return float(equity_scaled(correct[rows].mean(), np.array(levels), "high"))

    slow = jackknife_units(scaled, data.groups.unit, data.groups.members[:, 0])
    fast = es_estimate(accuracy, "race")
    assert fast.value == pytest.approx(slow.value, abs=1e-12)
    assert fast.standard_error == pytest.approx(slow.standard_error, rel=0.02)


def test_calibration_and_harm_stand_in_the_table_of_two_levels() -> None:
    table = classification_table(*simple(900), ATTRIBUTES, labels=LABELS, bootstrap=50)
    rows = table.set_index(["metric", "level"]).sort_index()
    for metric in ("brier", "ece", "fnr", "calibration_slope", "calibration_intercept"):
        assert np.isfinite(rows.loc[(metric, "Black"), "value"])
        assert rows.loc[(metric, "Black"), "low"] <= rows.loc[(metric, "Black"), "high"]
    # Black subjects' scores carry no signal: too extreme, and many are missed
    assert rows.loc[("calibration_slope", "Black"), "high"] < 0.5
    assert rows.loc[("calibration_slope", "White"), "low"] > 0.5
    missed = table[table["attribute"] == "race"].set_index("metric")
    assert missed.loc["fnr_worst", "level"] == "Black"
    assert missed.loc["fnr_gap", "value"] > 0.2
    assert 0 < missed.loc["fnr_gap_by_chance", "value"] < missed.loc["fnr_gap", "value"]
    assert np.isnan(missed.loc["fnr_gap", "low"])


def off(centre: float, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Truth with three cases in ten, and logits that lie near that of ``centre``."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(80) < 0.3).astype(np.int64)
    return truth, logit(centre) + spread * rng.normal(size=80)


def two_levels(z: np.ndarray) -> np.ndarray:
    return np.column_stack([expit(-z), expit(z)])


def shift(truth: np.ndarray, z: np.ndarray) -> float:
    """What the logits lack for as many cases to be expected as there are."""
    return float(optimize.brentq(lambda a: expit(a + z).sum() - truth.sum(), -40, 40, xtol=1e-12))


def strangers(n: int) -> Groups:
    """n subjects with an image each, and no groups."""
    return group_units(pd.DataFrame({"subject": np.arange(n)}), {})


@pytest.mark.parametrize("centre", [0.02, 0.001])
@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_intercept_is_right_where_a_newton_step_overshoots(centre: float, spread: float) -> None:
    """Scores that are far too low, as of a poor classifier: the first step leads further off."""
    truth, z = off(centre, spread)
    exact = shift(truth, z)
    if not spread:
        assert exact == pytest.approx(logit(truth.mean()) - logit(centre), abs=1e-9)
    p = expit(z)
    step = (truth - p).sum() / (p * (1 - p)).sum()
    assert step - exact > exact
    for sign in (1, -1):  # too low, and by as much too high
        cases = truth if sign > 0 else 1 - truth
        found = calibration_intercept_metric(cases, two_levels(sign * z))(strangers(80))[0]
        assert found.value == pytest.approx(sign * exact, abs=1e-6)
        fitted = expit(exact + z)
        assert found.standard_error == pytest.approx(
            np.sqrt(((truth - fitted) ** 2).sum() * 80 / 79) / (fitted * (1 - fitted)).sum()
        )


def test_slope_on_scores_that_hardly_differ_is_not_estimable() -> None:
    """A collapsed classifier says the same for everybody but for a billionth."""
    for seed in range(40):  # by rounding, a Newton step from some of them meets a singular matrix
        truth, z = off(0.47, 1e-9, seed)
        assert np.ptp(z) > 0
        found = calibration_slope_metric(truth, two_levels(z))(strangers(80))[0]
        assert np.isnan(found.value)
        assert found.note == "not estimable: the scores differ too little for a slope"


def test_slope_grows_as_scores_shrink_while_they_differ_enough() -> None:
    """Logits a hundred thousandth as large have a slope that many times as large."""
    rng = np.random.default_rng(1)
    z = rng.normal(size=200)
    truth = (rng.random(200) < expit(z)).astype(np.int64)
    whole, small = (
        calibration_slope_metric(truth, two_levels(share * z - 1))(strangers(200))[0]
        for share in (1.0, 1e-5)
    )
    assert small.value * 1e-5 == pytest.approx(whole.value, rel=1e-6)
    assert small.standard_error * 1e-5 == pytest.approx(whole.standard_error, rel=1e-6)


def test_a_group_whose_classifier_learnt_nothing_stops_no_table() -> None:
    """Asian subjects' scores hardly differ, Black subjects' are far too low, the rest are good."""
    codes = np.repeat([0, 1, 2], 80)
    once, same = off(0.47, 1e-9, seed=7)
    good = np.random.default_rng(2).normal(2 * once - 1.5)
    truth, z = np.tile(once, 3), np.concatenate([same, off(0.02, 0.2, seed=7)[1], good])
    race = {"race": NAMES["race"]}
    table = classification_table(
        tidy(two_levels(z), truth), people({"race": codes}), race, labels=LABELS, bootstrap=20
    )
    rows = table.set_index(["metric", "level"]).sort_index()
    for k, level in enumerate(NAMES["race"]):
        exact = shift(truth[codes == k], z[codes == k])
        row = rows.loc[("calibration_intercept", level)]
        assert row["value"] == pytest.approx(exact, abs=1e-6)
        assert row["low"] < exact < row["high"]
    slope = rows.loc["calibration_slope"]
    assert np.isnan(slope.loc["Asian", "value"])
    assert "the scores differ too little for a slope" in slope.loc["Asian", "note"]
    assert np.isfinite(slope.loc[["Black", "White", "all"], "value"].astype(float)).all()


def several(n: int = 300, seed: int = 5) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions of three classes."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(3, size=n)
    odds = np.exp(rng.normal(size=(n, 3)) + 1.2 * np.eye(3)[truth])
    codes = {"race": rng.choice(3, n), "sex": rng.integers(2, size=n)}
    return tidy(odds / odds.sum(axis=1, keepdims=True), truth), people(codes)


def test_several_classes_have_an_interval_by_bootstrap_and_contrasts_by_influence() -> None:
    predictions, cohort = several()
    data = scored(predictions, cohort, "c", ATTRIBUTES)
    auc = classification_audits(data, ATTRIBUTES, names=("auc",))["auc"]
    overall = auc.overall
    assert overall.limits is not None
    wider, narrower = (np.ptp(overall.interval(share)) for share in (0.99, 0.8))
    assert wider > narrower  # at any confidence that is asked for
    assert auc.contrasts["p"].notna().all()
    table = classification_table(predictions, cohort, ATTRIBUTES, labels={}, bootstrap=50)
    assert {"brier", "ece"} <= set(table["metric"])
    assert not {"fnr", "calibration_slope"} & set(table["metric"])


def test_whoever_is_not_of_the_first_class_is_ill() -> None:
    predictions, table = several()
    data = scored(predictions, table, "c", {"sex": NAMES["sex"]})
    assert data.scores.shape[1] > 2
    ill = data.ill
    assert (ill.truth == (data.truth > 0)).all()
    assert (ill.predicted == (data.predicted > 0)).all()
    np.testing.assert_allclose(
        ill.scores, np.stack([1 - ill.scores[:, 1], data.scores[:, 1:].sum(1)], 1)
    )
    found = classification_audits(
        data.ill, {"sex": NAMES["sex"]}, names=("fnr", "auc"), bootstrap=0
    )
    sick = data.truth > 0
    assert found["fnr"].overall.value == pytest.approx((data.predicted[sick] == 0).mean())
    assert found["auc"].overall.value == pytest.approx(roc_auc_score(sick, 1 - data.scores[:, 0]))
    two = scored(*simple(), "c", {"sex": NAMES["sex"]})
    assert (two.ill.scores == two.scores).all() and (two.ill.predicted == two.predicted).all()


def test_best_test_epoch_stands_beside_the_auc_it_flatters() -> None:
    predictions, cohort = simple()
    table = classification_table(predictions, cohort, ATTRIBUTES, labels={}, bootstrap=5).set_index(
        ["attribute", "metric"]
    )
    auc = table.loc[("overall", "auc"), "value"]
    watched = pd.DataFrame(
        {"step": [1, 2, 3], "condition": "c", "metric": "auc", "n": 300,
         "value": [0.5, auc, auc + 0.03], "selected": [False, True, False]}
    )  # fmt: skip
    table = classification_table(
        predictions, cohort, ATTRIBUTES, labels={}, bootstrap=5, watched=watched
    ).set_index("metric")
    assert table.loc[released.BEST_TEST_EPOCH, "value"] == pytest.approx(auc + 0.03)
    assert table.loc[released.GAIN, "value"] == pytest.approx(0.03)
    assert table.loc[released.GAIN, "attribute"] == "overall"
    assert "too high" in table.loc[released.BEST_TEST_EPOCH, "note"]


def test_threshold_is_used_and_unknown_truth_left_out() -> None:
    predictions, table = simple()
    keep = predictions["image"] < "i0200"
    predictions.loc[~keep, "truth"] = "unknown"
    rows = [
        classification_table(
            predictions, table, ATTRIBUTES, labels={}, thresholds={"c": cut}, bootstrap=5
        ).set_index(["attribute", "level", "metric"])
        for cut in (0.5, 0.0, float("nan"))
    ]
    assert rows[0].loc[("overall", "all", "auc"), "n"] == 200
    assert rows[1].loc[("overall", "all", "selection_rate"), "value"] == 1
    assert rows[2].loc[("overall", "all", "accuracy"), "value"] == pytest.approx(
        rows[0].loc[("overall", "all", "accuracy"), "value"]
    )


def test_one_class_group_is_nan_with_its_reason_and_not_minus_one() -> None:
    predictions, table = simple()
    asian = table.loc[table["race"] == "Asian", "image"]
    predictions.loc[predictions["image"].isin(asian), "truth"] = "L0"
    found = classification_table(predictions, table, ATTRIBUTES, labels={}, bootstrap=5)
    rows = found.set_index(["attribute", "level", "metric"])
    assert np.isnan(rows.loc[("race", "Asian", "auc"), "value"])
    assert "one class only" in rows.loc[("race", "Asian", "auc"), "note"]
    assert "without Asian" in rows.loc[("race", "all", "psd_max"), "note"]
    assert rows.loc[("race", "all", "psd_max"), "value"] < 1


def test_a_level_of_three_subjects_makes_no_disparity() -> None:
    predictions, table = simple()
    table["sex"] = ["Female"] * 3 + ["Male"] * 297
    table["race"] = np.where(table["race"] == "Asian", "White", table["race"])
    found = classification_table(predictions, table, ATTRIBUTES, labels={}, bootstrap=5)
    rows = found.set_index(["attribute", "metric"])
    for metric in ("dpd", "eod"):
        assert np.isnan(rows.loc[("sex", metric), "value"])
        assert rows.loc[("sex", f"{metric}_as_released"), "value"] > 0.1
        assert "fewer than two levels" in rows.loc[("sex", metric), "note"]
        assert rows.loc[("race", metric), "note"].endswith("without Asian (n < 10)")


def broken(kind: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    predictions, table = simple(60)
    if kind == "column":
        predictions = predictions.drop(columns="truth")
    elif kind == "nan":
        predictions.loc[0, "probability"] = np.nan
    elif kind == "range":
        predictions.loc[0, "probability"] = 1.5
    elif kind == "cohort":
        table = table.iloc[1:]
    elif kind == "truth":
        predictions.loc[predictions["image"] == "i0003", "truth"] = "L7"
    elif kind == "twice":
        predictions = pd.concat([predictions, predictions.iloc[:1]])
    return predictions, table


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("column", "column 'truth' is missing"),
        ("nan", "image 'i0000' lacks a probability"),
        ("range", "image 'i0000' lacks a probability"),
        ("cohort", "image 'i0000' is not in the cohort"),
        ("truth", "truth 'L7' is no level of it"),
        ("twice", "image 'i0000' repeats a level"),
    ],
)
def test_bad_predictions_are_named_in_one_line(kind: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        scored(*broken(kind), "c", ATTRIBUTES)


def test_equity_scaling_of_equal_levels_is_what_chance_alone_gives() -> None:
    """Over 100 cohorts: both means agree within three errors, far below the common accuracy."""
    sizes = {"small": 36, "middle": 132, "large": 800}
    level = np.repeat(list(sizes), list(sizes.values()))
    table = pd.DataFrame({"subject": np.arange(len(level)).astype(str), "size": level})
    groups = group_units(table, {"size": tuple(sizes)})
    plain, chance = [], []
    for seed in range(100):
        right = np.random.default_rng(seed).random(len(level)) < 0.85
        metric = mean_metric(right[groups.unit].astype(float), bounded=True)
        one = audit(metric, groups, {"size": tuple(sizes)}, metric="accuracy", better="high")
        plain.append(es_estimate(one, "size").value)
        chance.append(es_by_chance(one, "size"))
    error = np.std(plain) / np.sqrt(len(plain))
    assert abs(np.mean(plain) - np.mean(chance)) < 3 * error < 0.01
    assert np.mean(plain) < 0.85 - 0.03
