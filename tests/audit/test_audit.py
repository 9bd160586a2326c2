"""The audit: estimates, contrasts, adjusted p, and what happens to groups that are missing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from fairdiff_lib.audit import estimators
from fairdiff_lib.audit.audit import (
    Audit,
    auc_metric,
    audit,
    contrast_table,
    differences,
    kid_audit,
    mean_audit,
    mean_metric,
    rows_metric,
)
from fairdiff_lib.audit.contrasts import CONTRAST_COLUMNS, EXPLORATORY_NOTE, equity_rows
from fairdiff_lib.audit.estimate import (
    Estimate,
    Groups,
    combine,
    difference,
    group_units,
    max_t,
    mean_estimate,
)
from fairdiff_lib.audit.kid import Kernel
from fairdiff_lib.audit.quality import manifold_scores
from fairdiff_lib.settings.errors import InputError

KERNEL = Kernel(2.0)
LEVELS = {"race": ["Asian", "Black", "White"], "sex": ["Female", "Male"]}


def cohort(n: int, seed: int = 0) -> pd.DataFrame:
    """n subjects, one image each."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "subject": [f"s{i:04d}" for i in range(n)],
            "race": rng.choice(LEVELS["race"], n, p=[0.1, 0.3, 0.6]),
            "sex": rng.choice(LEVELS["sex"], n),
        }
    )


def everyone(n: int) -> tuple[np.ndarray, np.ndarray]:
    """One unit per row, all of them members."""
    return np.arange(n), np.ones(n, dtype=bool)


def estimate(value: float, influence: list[float], df: float = 50) -> Estimate:
    return Estimate(value, np.array(influence), int(np.count_nonzero(influence)), df)


def test_difference_of_separate_groups_is_welch() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=60) * np.repeat([1.0, 3.0], [20, 40])
    unit = np.arange(60)
    first = estimators.mean_of_rows(values, unit, unit < 20)
    second = estimators.mean_of_rows(values, unit, unit >= 20)
    gap = difference(first, second)
    expected = stats.ttest_ind(values[:20], values[20:], equal_var=False)
    assert gap.p_value() == pytest.approx(expected.pvalue, rel=1e-9)
    assert gap.df == pytest.approx(expected.df, rel=1e-9)
    interval = expected.confidence_interval()
    assert gap.interval() == pytest.approx((interval.low, interval.high), rel=1e-9)


def test_difference_on_shared_units_is_paired() -> None:
    rng = np.random.default_rng(1)
    first = rng.normal(size=30)
    second = first + 0.1 * rng.normal(size=30) + 0.05
    unit, member = everyone(30)
    gap = difference(*(estimators.mean_of_rows(v, unit, member) for v in (first, second)))
    assert gap.p_value() == pytest.approx(stats.ttest_rel(first, second).pvalue, rel=1e-9)


def test_images_of_one_subject_are_no_extra_evidence() -> None:
    """Each subject's image copied three times changes neither value nor error."""
    rng = np.random.default_rng(2)
    values, truth = rng.normal(size=40), rng.random(40) < 0.4
    unit, member = everyone(40)
    for one, three in (
        (
            estimators.mean_of_rows(values, unit, member),
            estimators.mean_of_rows(np.repeat(values, 3), np.repeat(unit, 3), member),
        ),
        (
            estimators.auc(truth, values, unit, member),
            estimators.auc(np.repeat(truth, 3), np.repeat(values, 3), np.repeat(unit, 3), member),
        ),
    ):
        assert three.value == pytest.approx(one.value, abs=1e-12)
        assert three.standard_error == pytest.approx(one.standard_error, rel=1e-9)
        assert three.n == one.n == 40


def test_auc_and_delong_variance() -> None:
    """Value as scikit-learn's; variance as the definition by pairs of cases and controls."""
    rng = np.random.default_rng(3)
    truth = rng.random(80) < 0.3
    score = np.round(rng.normal(size=80) + truth, 1)  # with ties
    found = estimators.auc(truth, score, *everyone(80))
    wins = np.sign(score[truth][:, None] - score[~truth][None, :]) / 2 + 0.5
    variance = wins.mean(1).var(ddof=1) / truth.sum() + wins.mean(0).var(ddof=1) / (~truth).sum()
    assert found.value == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
    assert found.standard_error**2 == pytest.approx(variance, rel=1e-9)


def test_macro_auc_error_agrees_with_a_cluster_bootstrap() -> None:
    rng = np.random.default_rng(4)
    unit = np.repeat(np.arange(150), 2)
    truth = np.repeat(rng.integers(3, size=150), 2)
    scores = rng.random((300, 3)) + 0.8 * np.eye(3)[truth] + np.repeat(rng.random((150, 3)), 2, 0)
    found = estimators.macro_auc(truth, scores, unit, np.ones(150, dtype=bool))
    each = [roc_auc_score(truth == k, scores[:, k]) for k in range(3)]
    assert found.value == pytest.approx(np.mean(each), abs=1e-12)
    from fairdiff_lib.audit.estimators import weighted_auc

    drawn = weighted_auc(truth, scores, estimators.multiplicities(unit, 600, seed=0))
    assert found.standard_error == pytest.approx(drawn.std(), rel=0.15)  # sd of 600: 3%


def test_delong_interval_covers() -> None:
    rng, hits = np.random.default_rng(5), []
    truth = np.arange(120) < 40
    true_auc = stats.norm.cdf(1 / 2**0.5)
    for _ in range(600):
        score = rng.normal(size=120) + truth
        low, high = estimators.auc(truth, score, *everyone(120)).interval()
        hits.append(low <= true_auc <= high)
    assert 0.93 <= np.mean(hits) <= 0.98


def test_jackknife_of_a_mean_is_the_mean() -> None:
    values = np.random.default_rng(6).normal(size=30)
    unit, member = everyone(30)
    free = estimators.jackknife_units(lambda rows: float(values[rows].mean()), unit, member)
    exact = estimators.mean_of_rows(values, unit, member)
    assert free.value == pytest.approx(exact.value)
    assert free.standard_error == pytest.approx(exact.standard_error, rel=1e-9)


def test_bootstrap_draws_whole_subjects_with_one_seed_each() -> None:
    unit = np.array([0, 0, 1, 2, 2, 2])
    few, many = (estimators.multiplicities(unit, r, seed=1) for r in (5, 50))
    np.testing.assert_array_equal(few, many[:5])
    np.testing.assert_array_equal(many[:, 0], many[:, 1])
    np.testing.assert_array_equal(many[:, [0, 2, 3]].sum(axis=1), np.full(50, 3))


def test_max_t_of_one_is_its_own_p_and_of_copies_too() -> None:
    one = estimate(2.0, [1.0, 0.0])
    twin = estimate(2.0, [1.0, 0.0])
    assert max_t([one])[0] == pytest.approx(one.p_value(), abs=1e-9)
    np.testing.assert_allclose(max_t([one, twin]), one.p_value(), atol=0.003)


def test_max_t_of_independent_contrasts_is_sidak() -> None:
    first, second = estimate(2.0, [1.0, 0.0]), estimate(2.5, [0.0, 1.0])
    expected = [1 - (1 - c.p_value()) ** 2 for c in (first, second)]
    np.testing.assert_allclose(max_t([first, second]), expected, atol=0.003)


def test_max_t_keeps_the_family_at_its_level() -> None:
    """Three contrasts with one shared reference, no effect: 5% of families alarm."""
    rng, alarms = np.random.default_rng(7), []
    unit = np.arange(200)
    members = [(unit >= 50 * k) & (unit < 50 * (k + 1)) for k in range(4)]
    for _ in range(400):
        values = rng.normal(size=200)
        means = [estimators.mean_of_rows(values, unit, member) for member in members]
        gaps = [difference(mean, means[3]) for mean in means[:3]]
        alarms.append(np.nanmin(max_t(gaps, draws=4000)) < 0.05)
    assert 0.02 <= np.mean(alarms) <= 0.08  # Monte Carlo sd 0.011; unadjusted: 0.12


def test_combination_carries_the_reason_of_what_is_missing() -> None:
    unit = np.arange(30)
    few = estimators.mean_of_rows(np.ones(30), unit, unit < 4)
    rest = estimators.mean_of_rows(np.arange(30.0), unit, unit >= 4)
    mixed = combine([few, rest], [0.5, 0.5])
    assert np.isnan(mixed.value)
    assert "fewer than 10 subjects" in mixed.note


def planted(n: int = 600, extra: float = 0.5, seed: int = 8, base: float = 0.1) -> Audit:
    """Audit of a generator whose images of Black subjects are off by ``extra``."""
    rng, table = np.random.default_rng(seed), cohort(n, seed)
    real = rng.normal(size=(n, 4))
    shift = base + extra * (table["race"] == "Black").to_numpy()[:, None]
    return kid_audit(KERNEL, real, rng.normal(size=(n, 4)) + shift, table, LEVELS)


def test_audit_finds_the_planted_group_and_no_other() -> None:
    contrasts = planted().contrasts.set_index("level")
    assert contrasts.loc["Black", "reference"] == "White"
    assert contrasts.loc["Black", "value"] > 0
    assert contrasts.loc["Black", "p_adjusted"] < 0.001
    assert (contrasts.drop(index="Black")["p"] > 0.05).all()


def test_small_levels_are_secondary_and_stay_out_of_the_family() -> None:
    contrasts = planted().contrasts.set_index("level")
    assert contrasts.loc["Asian", "n"] < 80
    assert contrasts.loc["Asian", "role"] == "secondary"
    assert contrasts.loc["Asian", "note"] == EXPLORATORY_NOTE
    family = contrasts[contrasts["role"] == "primary"]
    assert len(family) == 2
    assert (family["p_adjusted"] >= family["p"]).all()
    assert (family["p_adjusted"] <= 2 * family["p"] + 1e-12).all()


def test_missing_and_tiny_groups_stay_visible() -> None:
    table = cohort(200)
    table["race"] = np.where(np.arange(200) < 3, "Asian", "White")
    values = np.random.default_rng(9).normal(size=200)
    groups = group_units(table, LEVELS)
    found = audit(mean_metric(values), groups, LEVELS, metric="loss")
    rows = found.by_group.set_index("level")
    assert rows["n"].to_dict()["Asian"] == 3
    assert rows["n"].to_dict()["Black"] == 0
    assert rows.loc[["Asian", "Black"], "value"].isna().all()
    assert rows.loc[["Asian", "Black"], "note"].str.contains("not estimable").all()
    race = found.contrasts[found.contrasts["attribute"] == "race"]
    assert race["p"].isna().all()
    assert race["note"].str.contains("not estimable").all()
    gap = found.summary.set_index(["attribute", "metric"]).loc[("race", "loss_gap")]
    assert np.isnan(gap["value"])


def test_equity_rows_follow_their_formulas() -> None:
    found = planted()
    overall = found.overall.value
    race = np.array([found.estimates[("race", level)].value for level in LEVELS["race"]])
    rows = found.summary[found.summary["attribute"] == "race"].set_index("metric")
    assert rows.loc["es_kid", "value"] == pytest.approx(overall + np.abs(race - overall).sum())
    assert rows.loc["kid_gap", "value"] == pytest.approx(np.ptp(race))
    assert rows.loc["kid_ratio", "value"] == pytest.approx(race.max() / race.min())
    assert rows.loc["kid_worst", "level"] == "Black"
    assert rows.loc["kid_psd_mean", "value"] == pytest.approx(race.std() / overall)
    assert rows.loc["kid_gap", ["low", "high"]].isna().all()  # a gap has no valid interval


def test_equity_rows_keep_methods_and_seeds_apart() -> None:
    one = planted().by_group.assign(method="a", seed=0)
    two = planted(extra=0.0).by_group.assign(method="b", seed=0)
    rows = equity_rows(pd.concat([one, two]), LEVELS)
    gaps = rows[(rows["metric"] == "kid_gap") & (rows["attribute"] == "race")]
    assert gaps.set_index("method")["value"]["a"] > gaps.set_index("method")["value"]["b"]


def test_contrast_table_has_its_columns() -> None:
    labels = {"dataset": "toy", "method": "none", "seed": 0}
    table = contrast_table([(labels, planted())])
    assert list(table.columns) == [*labels, *CONTRAST_COLUMNS]
    assert list(table["role"]).count("description") == len(LEVELS)  # an omnibus row per attribute
    assert len(table) == 3 + len(LEVELS)


def test_two_models_are_compared_on_their_shared_subjects() -> None:
    rng, table = np.random.default_rng(10), cohort(300)
    real, noise = rng.normal(size=(300, 4)), rng.normal(size=(300, 4))
    worse, better = (kid_audit(KERNEL, real, noise + shift, table, LEVELS) for shift in (0.6, 0.5))
    gap = differences(better, worse)["overall", "all"]
    assert gap.interval()[1] < 0
    assert gap.standard_error < better.overall.standard_error  # what both share cancels


def test_own_function_of_rows_can_be_audited() -> None:
    table = cohort(200)
    values = np.random.default_rng(11).normal(size=200)
    groups: Groups = group_units(table, LEVELS)
    found = audit(
        rows_metric(lambda rows: float(np.median(values[rows]))),
        groups, LEVELS, metric="median", better="high",
    )  # fmt: skip
    assert found.overall.value == pytest.approx(np.median(values))


def test_a_subject_without_a_name_is_refused_by_its_row() -> None:
    table = cohort(100)
    table.loc[7, "subject"] = None
    with pytest.raises(InputError, match="row 7 has no subject"):
        group_units(table, LEVELS)


def test_a_mean_of_no_audit_is_refused() -> None:
    with pytest.raises(InputError, match="no audit; expected one or more"):
        mean_audit([])


def test_attribute_with_one_level_is_refused() -> None:
    table = cohort(50)
    levels = {"race": LEVELS["race"], "sex": ["Female", "Male"]}
    groups = group_units(table, levels)
    with pytest.raises(InputError, match="sex has fewer than two levels"):
        audit(mean_metric(np.ones(50)), groups, {"sex": ["Male"]}, metric="loss")


def test_a_level_may_be_declared_but_have_nobody() -> None:
    table = cohort(100).assign(sex="Male")
    with pytest.raises(InputError, match="fewer than two levels of sex have a subject"):
        audit(mean_metric(np.ones(100)), group_units(table, LEVELS), LEVELS, metric="loss")


# -- what a missing difference means ---------------------------------------------------------


def test_a_detectable_difference_is_found_in_four_of_five_studies() -> None:
    rng, found = np.random.default_rng(12), []
    unit = np.arange(120)
    size = 0.5  # true difference; sd 1
    planned = []
    for _ in range(800):
        values = rng.normal(size=120) + size * (unit < 60)
        gap = difference(
            *(estimators.mean_of_rows(values, unit, m) for m in (unit < 60, unit >= 60))
        )
        planned.append(gap.detectable())
        found.append(gap.p_value() < 0.05)
    power = np.mean(found)
    z = size / np.mean(planned) * (1.98 + 0.845) - 1.98  # what the planned size says of this one
    assert power == pytest.approx(stats.norm.cdf(z), abs=0.04)  # Monte Carlo sd 0.015


def test_equivalence_is_claimed_exactly_where_the_90_percent_interval_lies_inside() -> None:
    gap = estimate(0.4, [0.3, 0.4], df=30)  # standard error 0.5
    low, high = gap.interval(0.90)
    for margin in (0.9, high - 1e-6, high + 1e-6, 2.0):
        assert (gap.p_equivalence(margin) < 0.05) == (-margin < low and high < margin)
    assert np.isnan(gap.p_equivalence(float("nan"))) and np.isnan(gap.p_equivalence(0.0))


def test_a_score_that_is_no_number_is_refused_by_its_row() -> None:
    scores = np.full((6, 2), 0.5)
    scores[4, 1] = np.nan
    with pytest.raises(InputError, match="scores: row 4 has a value that is not finite"):
        auc_metric(np.arange(6) % 2, scores)


@pytest.mark.parametrize(("base", "has_ratio"), [(0.1, False), (0.6, True)])
def test_every_contrast_says_what_it_could_have_missed(base: float, has_ratio: bool) -> None:
    found = planted(extra=0.0, base=base)
    for row in found.contrasts.itertuples():
        reference = found.estimates[row.attribute, row.reference]
        gap = difference(found.estimates[row.attribute, row.level], reference)
        assert 2.8 < row.mde / gap.standard_error < 2.9  # t for 5%, and for 80% power
        ratio = (reference.value + row.mde) / reference.value
        assert (reference.interval()[0] > 0) == has_ratio  # else the ratio may be to 0
        assert row.mde_ratio == pytest.approx(ratio if has_ratio else np.nan, nan_ok=True)
        assert np.isnan(row.smallest_effect)  # nobody has said what is of interest


# -- all levels at once ----------------------------------------------------------------------


def test_the_range_has_a_test_and_no_interval() -> None:
    rows = planted().omnibus.set_index("attribute")
    estimates = planted().estimates
    kids = [estimates["race", level].value for level in ("Black", "White")]  # Asian: too small
    assert rows.loc["race", "value"] == pytest.approx(np.ptp(kids))
    assert "without Asian" in rows.loc["race", "note"]
    assert rows.loc["race", "p"] < 0.001 < 0.05 < rows.loc["sex", "p"]
    assert rows[["low", "high"]].isna().all(axis=None)


@pytest.mark.slow
def test_the_omnibus_test_alarms_in_one_null_family_of_twenty() -> None:
    rng, alarms, unit = np.random.default_rng(13), [], np.arange(240)
    table = pd.DataFrame({"subject": unit, "g": np.repeat(list("abcd"), 60)})
    levels = {"g": tuple("abcd")}
    groups = group_units(table, levels)
    for _ in range(120):
        metric = mean_metric(rng.normal(size=240))
        found = audit(metric, groups, levels, metric="x", secondary_below=20)
        alarms.append(found.omnibus["p"].iloc[0] < 0.05)
    assert np.mean(alarms) <= 0.11  # Monte Carlo sd 0.02; the smallest unadjusted p: 0.20


@pytest.mark.slow
def test_squared_disparity_is_unbiased_where_the_raw_one_is_not() -> None:
    rng, unit, owned, raw = np.random.default_rng(14), np.arange(90), [], []
    table = pd.DataFrame({"subject": unit, "g": np.repeat(list("ab"), 45)})
    groups, levels = group_units(table, {"g": ("a", "b")}), {"g": ("a", "b")}
    for _ in range(1500):
        values = rng.normal(size=90) + 0.3 * (unit < 45)
        metric = mean_metric(values)
        found = audit(metric, groups, levels, metric="x", secondary_below=20)
        owned.append(found.disparity["value"].iloc[0])
        raw.append(found.contrasts["value"].iloc[0] ** 2)
    assert np.mean(owned) == pytest.approx(0.09, abs=0.012)  # Monte Carlo sd 0.004
    assert np.mean(raw) > 0.12  # 0.09 plus the variance of a difference, 2 / 45


# -- over several models ---------------------------------------------------------------------


def test_the_mean_over_models_counts_shared_patients_once() -> None:
    rng, table = np.random.default_rng(15), cohort(300)
    real, noise = rng.normal(size=(300, 4)), rng.normal(size=(300, 4))
    one = kid_audit(KERNEL, real, noise + 0.3, table, LEVELS)
    mean = mean_audit([one, one, one])
    pd.testing.assert_frame_equal(
        mean.contrasts.drop(columns=["p_adjusted"]), one.contrasts.drop(columns=["p_adjusted"])
    )
    assert mean.overall.n == one.overall.n
    other = kid_audit(KERNEL, real, rng.normal(size=(300, 4)) + 0.3, table, LEVELS)
    both = mean_audit([one, other]).overall
    assert both.value == pytest.approx((one.overall.value + other.overall.value) / 2)
    assert both.standard_error < one.overall.standard_error
    with pytest.raises(InputError, match="differ in metric"):
        mean_audit([one, dataclasses.replace(other, metric="fid")])
    small = estimators.mean_of_rows(np.ones(9), np.arange(9), np.ones(9, dtype=bool))
    assert mean_estimate([small, small]).n == 9


def test_what_was_not_declared_is_exploratory_and_shares_one_family() -> None:
    own, labels = planted(), {"method": "none", "seed": 0}
    other = planted(seed=9).with_role("exploratory")
    table = contrast_table([(labels, own), (labels, other)])
    rest = table[table["role"].isin(["secondary", "exploratory"])]
    order = rest.sort_values("p")
    expected = np.minimum.accumulate((order["p"] * len(order) / np.arange(1, len(order) + 1))[::-1])
    np.testing.assert_allclose(order["p_adjusted"], expected[::-1])
    assert set(other.contrasts["role"]) == {"exploratory"}


# -- further metrics -------------------------------------------------------------------------


def test_lost_variety_shows_as_low_recall_within_its_group() -> None:
    rng, table = np.random.default_rng(16), cohort(400)
    real = rng.normal(size=(400, 3))
    black = (table["race"] == "Black").to_numpy()[:, None]
    generated = np.where(black, 0.05, 1.0) * rng.normal(size=(400, 3))
    recall = {
        race: manifold_scores(real[own], generated[own])["recall"].mean()
        for race, own in table.groupby("race").indices.items()
    }
    assert recall["Black"] < 0.3 < 0.7 < recall["White"]
