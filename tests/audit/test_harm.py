"""Who is missed, who is alarmed, who is worst off: rates at equal sensitivity, and their truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fairdiff_lib.audit import harm
from fairdiff_lib.audit.audit import audit, mean_metric, worst_rows
from fairdiff_lib.audit.classifiers import Scored
from fairdiff_lib.audit.estimate import Estimate, group_units
from fairdiff_lib.audit.harm import (
    Threshold,
    confusion_rows,
    equal_sensitivity_metrics,
    group_thresholds,
    reliability_rows,
    roc_at,
    roc_rows,
    threshold_at,
)
from fairdiff_lib.settings.errors import InputError

SEX = {"sex": ("Female", "Male")}
FEMALE, MALE, ALL = ("sex", "Female"), ("sex", "Male"), ("overall", "all")
FPR, TPR = (f"{name}_positive_rate_at_equal_sensitivity" for name in ("false", "true"))


def data(n: int, seed: int = 0, shift: float = 0.0, noise: float = 1.0, images: int = 1) -> Scored:
    """n subjects, half female; normal scores, those of men ``shift`` higher and noisier."""
    rng = np.random.default_rng(seed)
    male, truth = np.arange(n) % 2, (np.arange(n) // 2) % 2
    own = 1.5 * truth + shift * male + np.where(male, noise, 1.0) * rng.normal(size=n)
    score = np.repeat(stats.norm.cdf(own), images)
    table = pd.DataFrame({"subject": np.repeat(np.arange(n), images),
                          "sex": np.repeat(np.array(SEX["sex"])[male], images)})  # fmt: skip
    scores = np.column_stack([1 - score, score])
    called = (score >= 0.8).astype(np.int64)
    return Scored(np.repeat(truth, images), called, scores, group_units(table, SEX))


def rates(
    test: Scored, validation: Scored, replicates: int = 100
) -> dict[str, dict[tuple[str, str], Estimate]]:
    thresholds = group_thresholds(validation, replicates=replicates)
    found = equal_sensitivity_metrics(test, thresholds)
    return {
        name: dict(zip(test.groups.keys, one(test.groups), strict=True))
        for name, one in found.items()
    }


# -- thresholds at equal sensitivity ---------------------------------------------------------


@pytest.mark.parametrize("n", [15, 150])
def test_a_threshold_keeps_its_promise_on_new_cases_whatever_its_n(n: int) -> None:
    """80% of new cases are found; at the 12th of 15 scores, which finds 80% of these, only 75%."""
    rng = np.random.default_rng(n)
    drawn = rng.normal(size=(3000, n))
    kept = [stats.norm.sf(threshold_at(own, 0.8)) for own in drawn]
    plain = stats.norm.sf(np.sort(drawn, axis=1)[:, n - round(0.8 * n)])
    error = np.std(kept) / 3000**0.5
    assert abs(np.mean(kept) - 0.8) < 4 * error
    if n == 15:
        assert np.mean(plain) == pytest.approx(0.75, abs=4 * error)


def test_each_group_has_its_own_threshold_so_that_a_shifted_score_is_no_disparity() -> None:
    """Men's scores are higher for all: one threshold alarms them more, their own one doesn't."""
    test, validation = data(8000, 1, shift=0.8), data(8000, 2, shift=0.8)
    found = rates(test, validation)[FPR]
    men, women = (found[key].value for key in (MALE, FEMALE))
    expected = stats.norm.sf(1.5 + stats.norm.ppf(0.2))
    assert men == pytest.approx(expected, abs=0.03) and women == pytest.approx(expected, abs=0.03)
    common = found[ALL]
    assert "one threshold for everybody" in common.note
    called = test.scores[:, 1] >= np.quantile(validation.scores[validation.truth == 1, 1], 0.2)
    by_sex = [called[(test.truth == 0) & (np.arange(8000) % 2 == k)].mean() for k in (0, 1)]
    assert by_sex[1] - by_sex[0] > 0.15


def test_who_is_harder_to_tell_pays_with_more_alarms_for_the_same_sensitivity() -> None:
    test, validation = data(8000, 3, noise=2.0), data(8000, 4, noise=2.0)
    found = rates(test, validation)
    for key in (MALE, FEMALE):
        assert found[TPR][key].value == pytest.approx(0.8, abs=0.04)
    expected = stats.norm.sf((1.5 + 2 * stats.norm.ppf(0.2)) / 2)
    assert found[FPR][MALE].value == pytest.approx(expected, abs=0.04)
    assert found[FPR][MALE].value > found[FPR][FEMALE].value + 0.15


@pytest.mark.slow
def test_intervals_know_the_validation_subjects() -> None:
    """With 20 validation cases a level, intervals hold the truth; those of test alone rarely do."""
    truth = stats.norm.sf(1.5 + stats.norm.ppf(0.2))
    held, held_without, rounds = 0, 0, 150
    for seed in range(rounds):
        test, validation = data(800, 10_000 + seed), data(80, 20_000 + seed)
        one = rates(test, validation, replicates=60)[FPR][FEMALE]
        low, high = one.interval()
        held += low < truth < high
        alone = np.sqrt(np.sum(one.influence[:800] ** 2))
        held_without += abs(one.value - truth) < 1.96 * alone
    assert held / rounds > 0.89
    assert held_without / rounds < 0.75


def test_a_subjects_images_count_as_one_subject() -> None:
    single, double = data(200, 5), data(200, 5, images=2)
    one, two = (rates(x, data(200, 6))[FPR][MALE] for x in (single, double))
    assert two.value == pytest.approx(one.value) and two.n == one.n
    assert two.standard_error == pytest.approx(one.standard_error)
    assert group_thresholds(double)[MALE].n == 50


def test_bad_groups_say_why() -> None:
    test, few = data(200), data(24)
    found = rates(test, few)[FPR][MALE]  # 6 male cases
    assert np.isnan(found.value)
    assert found.note == "not estimable: fewer than 10 validation subjects with the condition"
    equal = data(200)
    equal = Scored(equal.truth, equal.predicted, np.full((200, 2), 0.5), equal.groups)
    found = rates(test, equal)[FPR]
    assert all("all validation scores equal" in one.note for one in found.values())
    healthy = Scored(np.ones(200, np.int64), test.predicted, test.scores, test.groups)
    found = rates(healthy, data(200))[FPR][MALE]
    assert found.note == "not estimable: fewer than 10 test subjects without the condition"
    three = Scored(test.truth, test.predicted, np.full((200, 3), 1 / 3), test.groups)
    with pytest.raises(InputError, match="equal sensitivity: 3 classes; expected two"):
        group_thresholds(three)
    with pytest.raises(InputError, match=r"target 1\.0; expected more than 0 and less than 1"):
        group_thresholds(test, 1.0)
    with pytest.raises(InputError, match="no threshold for sex 'Female'"):
        equal_sensitivity_metrics(test, {ALL: Threshold(0.5, np.ones(2), 20)})[FPR](test.groups)


# -- the worst level -------------------------------------------------------------------------


@pytest.mark.slow
def test_the_interval_of_the_level_that_was_picked_covers_it() -> None:
    """Six equal levels: the worst one's own interval misses often, the widened one doesn't."""
    levels = {"g": tuple("abcdef")}
    plain = widened = 0
    rounds, per = 400, 40
    groups = group_units(
        pd.DataFrame({"subject": np.arange(6 * per), "g": np.repeat(list("abcdef"), per)}), levels
    )
    for seed in range(rounds):
        values = np.random.default_rng(seed).normal(size=6 * per)
        one = audit(mean_metric(values), groups, levels, metric="loss")
        row = worst_rows(one).set_index("metric").loc["loss_worst"]
        assert row["value"] == max(one.estimates["g", level].value for level in "abcdef")
        assert "picked as the worst of 6 levels" in row["note"]
        widened += row["low"] < 0 < row["high"]
        low, high = one.estimates["g", row["level"]].interval()
        plain += low < 0 < high
    assert widened / rounds > 0.93
    assert plain / rounds < 0.90


def test_a_level_without_a_value_is_named_and_not_the_worst() -> None:
    table = pd.DataFrame({"subject": np.arange(65), "g": ["a"] * 30 + ["b"] * 30 + ["c"] * 5})
    levels = {"g": ("a", "b", "c")}
    values = np.r_[np.random.default_rng(0).normal(size=60), np.full(5, 9.0)]
    one = audit(mean_metric(values), group_units(table, levels), levels, metric="loss")
    rows = worst_rows(one).set_index("metric")
    assert rows.loc["loss_worst", "level"] in ("a", "b")
    assert "without c (not estimable)" in rows.loc["loss_worst", "note"]
    assert "worst of 2 levels" in rows.loc["loss_worst", "note"]
    assert list(rows.index) == ["loss_gap", "loss_gap_by_chance", "loss_worst"]


# -- the table -------------------------------------------------------------------------------


def test_the_harm_table_has_every_metric_with_the_planted_disparity() -> None:
    test, validation = data(1200, 7, noise=3.0), data(600, 8, noise=3.0)
    thresholds = group_thresholds(validation, replicates=50)
    audits = harm.harm_audits(test, thresholds, SEX, bootstrap=50)
    assert set(audits) == {"auc", "brier", "ece", "calibration_slope", "calibration_intercept",
                           "fnr", FPR, TPR}  # fmt: skip
    rows = harm.harm_table(audits, thresholds).set_index(["level", "metric"])
    for metric in ("brier", "fnr", FPR):
        assert rows.loc[("Male", metric), "low"] > rows.loc[("Female", metric), "value"]
        worst_row = rows.xs(f"{metric}_worst", level="metric")
        assert list(worst_row.index) == ["Male"] and worst_row["low"].notna().all()
        contrasts = audits[metric].contrasts
        assert (contrasts["p_adjusted"] < 0.001).all() and (
            contrasts["role"] == "exploratory"
        ).all()
    assert rows.loc[("Male", "calibration_slope"), "value"] < 0.6
    assert "calibration_slope_worst" not in rows.index.get_level_values("metric")
    cut = rows.loc[("Female", "threshold_at_equal_sensitivity")]
    assert cut["n"] == 150 and cut["value"] == thresholds[FEMALE].value


def test_several_classes_have_what_they_can_have() -> None:
    rng = np.random.default_rng(0)
    one = data(120)
    truth = rng.integers(3, size=120)
    three = Scored(truth, truth, rng.dirichlet(np.ones(3), 120), one.groups)
    assert set(harm.harm_audits(three, None, SEX, bootstrap=20)) == {"auc", "brier", "ece"}


# -- curves ----------------------------------------------------------------------------------


def test_the_roc_curve_is_scikit_learns_and_its_area_the_auc() -> None:
    from sklearn.metrics import roc_auc_score, roc_curve

    one = data(300, 9)
    score, truth = np.round(one.scores[:, 1], 1), one.truth == 1  # many ties
    grid = np.linspace(0, 1, 2001)
    ours = roc_at(truth, score, np.ones((1, 300)), grid)[0]
    x, y, _ = roc_curve(truth, score)
    for rate, value in zip(x, y, strict=True):
        assert y[x <= rate + 1e-12].max() >= value
        near = ours[np.searchsorted(grid, rate, side="right") - 1 :][:2]
        assert near.min() <= y[np.isclose(x, rate)].max() + 0.02
    assert np.trapezoid(ours, grid) == pytest.approx(roc_auc_score(truth, score), abs=1e-3)


def test_roc_bands_are_wider_for_fewer_and_absent_where_a_class_is_too_small() -> None:
    table = roc_rows(data(400, 10), replicates=60)
    mid = table[np.isclose(table["false_positive_rate"], 0.2)].set_index("level")
    assert (mid["high"] - mid["low"])["Male"] > (mid["high"] - mid["low"])["all"]
    assert ((mid["low"] <= mid["value"]) & (mid["value"] <= mid["high"])).all()
    few = roc_rows(data(24), replicates=20).set_index("level")
    assert np.isnan(few.loc["Male", "value"]) and "fewer than 10" in few.loc["Male", "note"]
    three = Scored(np.zeros(9, np.int64), np.zeros(9, np.int64), np.full((9, 3), 1 / 3),
                   data(9).groups)  # fmt: skip
    with pytest.raises(InputError, match="ROC curve: 3 classes; expected two"):
        roc_rows(three)


def test_reliability_is_the_share_in_each_bin_and_a_small_group_has_fewer_bins() -> None:
    one = data(400, 11)
    table = reliability_rows(one)
    female = table[table["level"] == "Female"]
    assert len(female) == 5 and female["n"].sum() == 200
    own = np.arange(400) % 2 == 0
    assert np.average(female["value"], weights=female["n"]) == pytest.approx(one.truth[own].mean())
    small = reliability_rows(data(40))
    assert (small["level"] == "Male").sum() == 2
    equal = Scored(one.truth, one.predicted, np.full((400, 2), 0.5), one.groups)
    assert (reliability_rows(equal)["level"] == "Male").sum() == 1


def test_confusions_add_up_to_the_rows() -> None:
    one = data(300, 12)
    table = confusion_rows(one, ("well", "ill"))
    sums = table.groupby(["level", "truth"])["value"].sum()
    assert np.allclose(sums, 1)
    male = table[(table["level"] == "Male") & (table["truth"] == "ill")].set_index("called")
    rows = (np.arange(300) % 2 == 1) & (one.truth == 1)
    assert male.loc["well", "value"] == pytest.approx((one.predicted[rows] == 0).mean())
    assert male["count"].sum() == rows.sum() == male["n"].iloc[0]
    with pytest.raises(InputError, match="1 names for 2 classes"):
        confusion_rows(one, ("ill",))
