"""Over seeds: mean and interval, never the best, and no p from too few."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fairdiff_lib.audit.audit import Audit
from fairdiff_lib.audit.contrasts import Design
from fairdiff_lib.audit.estimate import Estimate
from fairdiff_lib.audit.seeds import (
    compare_audits,
    for_new_patients,
    over_seeds,
    summarise_seeds,
)
from fairdiff_lib.settings.errors import InputError


def runs(values: dict[str, list[float]]) -> pd.DataFrame:
    """A table with one number per method and seed."""
    rows = [
        {"dataset": "toy", "method": method, "seed": seed, "attribute": "overall", "level": "all",
         "metric": "kid", "n": 100, "value": value, "low": value - 1, "high": value + 1, "note": ""}
        for method, numbers in values.items()
        for seed, value in enumerate(numbers)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def without_intervals(values: dict[str, list[float]]) -> pd.DataFrame:
    """As :func:`runs`, of a number that a single run gives no interval of."""
    return runs(values).assign(low=np.nan, high=np.nan)


def test_mean_and_t_interval_over_seeds() -> None:
    numbers = [1.0, 2.0, 4.0, 3.0, 2.5]
    row = summarise_seeds(without_intervals({"none": numbers})).iloc[0]
    expected = stats.t.interval(0.95, 4, np.mean(numbers), stats.sem(numbers))
    assert (row["low"], row["high"]) == pytest.approx(expected)
    assert row["value"] == pytest.approx(2.5)
    assert row["sd"] == pytest.approx(np.std(numbers, ddof=1))
    assert row["n_seeds"] == 5
    assert row["seeds"] == "0,1,2,3,4"


def test_the_interval_of_a_rate_over_seeds_stays_between_0_and_1() -> None:
    for metric, numbers in (
        ("auc", [0.99, 0.62]),
        ("fnr_gap", [0.01, 0.2]),
    ):
        row = summarise_seeds(without_intervals({"none": numbers}).assign(metric=metric)).iloc[0]
        assert 0 < row["low"] < row["value"] < row["high"] < 1
        assert row["value"] == pytest.approx(np.mean(numbers))
    close = [0.70, 0.71, 0.72, 0.715, 0.705]  # far from the ends both scales agree
    row = summarise_seeds(without_intervals({"none": close}).assign(metric="auc")).iloc[0]
    plain = stats.t.interval(0.95, 4, np.mean(close), stats.sem(close))
    assert (row["low"], row["high"]) == pytest.approx(plain, abs=2e-4)
    scaled = summarise_seeds(runs({"none": close}).assign(metric="es_auc")).iloc[0]
    assert np.isnan([scaled["low"], scaled["high"]]).all() and scaled["sd"] > 0
    changed = summarise_seeds(runs({"none": [-0.1, 0.02]}).assign(metric="auc_change")).iloc[0]
    assert changed["low"] < -0.1  # a difference is no rate


def test_one_seed_keeps_its_interval_over_subjects_and_says_so() -> None:
    row = summarise_seeds(runs({"none": [2.0]})).iloc[0]
    assert (row["low"], row["value"], row["high"]) == (1, 2, 3)
    assert row["note"] == "one seed: interval over subjects"


def test_fewer_than_five_seeds_are_shown_without_p() -> None:
    few = runs({"none": [1.0, 1.1, 1.2], "fair": [0.5, 0.7, 0.6]})
    assert "without p" in summarise_seeds(few)["note"].iloc[0]


def test_what_no_seed_changes_keeps_its_own_interval() -> None:
    """The floor between halves of the reals: a band, not a number known without error."""
    row = summarise_seeds(runs({"none": [0.5, 0.5, 0.5]})).iloc[0]
    assert (row["low"], row["value"], row["high"]) == (-0.5, 0.5, 1.5)
    assert "the same for every seed" in row["note"]


def test_missing_seeds_are_counted() -> None:
    row = summarise_seeds(runs({"none": [1.0, np.nan, 3.0]})).iloc[0]
    assert row["value"] == 2
    assert "estimable in 2 of 3 seeds" in row["note"]


def test_nothing_to_estimate_stays_nan_with_its_reason() -> None:
    table = runs({"none": [np.nan]}).assign(note="not estimable: fewer than 10 subjects")
    row = summarise_seeds(table).iloc[0]
    assert np.isnan(row["value"])
    assert row["note"] == "not estimable: fewer than 10 subjects"


def test_refuses_repeated_rows_and_missing_columns() -> None:
    table = runs({"none": [1.0, 2.0]})
    with pytest.raises(InputError, match="repeats another's names"):
        summarise_seeds(pd.concat([table, table]))
    with pytest.raises(InputError, match="column 'note' is missing"):
        summarise_seeds(table.drop(columns="note"))


def test_worst_levels_of_several_seeds_are_not_averaged() -> None:
    table = runs({"none": [1.0, 2.0]})
    worst = table.assign(metric="kid_worst", level=["Asian", "Black"])
    assert set(summarise_seeds(pd.concat([table, worst]))["metric"]) == {"kid"}
    assert len(summarise_seeds(worst.iloc[:1])) == 1


# -- for new patients ------------------------------------------------------------------------


def study(rng: np.random.Generator, count: int, patients: int) -> list[Estimate]:
    """Differences under ``count`` seeds on shared patients; the true mean difference is 0.

    A patient's own effect has sd 1 and is shared by the seeds; a seed's has sd 0.2, a patient's
    under a seed 0.5.
    """
    own = rng.normal(size=patients)
    found = []
    for _ in range(count):
        each = own + 0.2 * rng.normal() + 0.5 * rng.normal(size=patients)
        influence = (each - each.mean()) / np.sqrt(patients * (patients - 1))
        found.append(Estimate(float(each.mean()), influence, patients, patients - 1.0))
    return found


def test_the_interval_for_new_patients_covers_where_that_for_these_does_not() -> None:
    rng, these, new = np.random.default_rng(1), [], []
    for _ in range(1500):
        change = for_new_patients(study(rng, 5, 40))
        these.append(change.low < 0 < change.high)
        new.append(change.low_new < 0 < change.high_new)
    assert 0.94 <= np.mean(new) <= 0.985  # Monte Carlo sd 0.006
    assert np.mean(these) < 0.90


def test_what_the_seeds_share_is_no_spread_between_them() -> None:
    """The same model five times: nothing varies over seeds, everything over patients."""
    rng = np.random.default_rng(2)
    one = study(rng, 1, 40)[0]
    change = for_new_patients([one] * 5)
    assert change.sd == 0 and np.isnan(change.p)
    assert (change.low_new, change.high_new) == pytest.approx(one.interval())
    assert change.p_new == pytest.approx(one.p_value())


def test_new_patients_make_nothing_surer() -> None:
    """Three seeds far apart on many patients: Satterthwaite's df alone would narrow it."""
    rng = np.random.default_rng(4)
    for _ in range(50):
        change = for_new_patients(study(rng, 3, 400))
        assert change.low_new <= change.low and change.high <= change.high_new


def test_changes_are_paired_by_seed_and_few_seeds_have_no_p() -> None:
    rng = np.random.default_rng(3)
    keys = [("overall", "all"), ("sex", "Female"), ("sex", "Male")]
    design = Design({"sex": ("Female", "Male")})

    def of(estimate: Estimate) -> Audit:
        return Audit("kid", dict.fromkeys(keys, estimate), design, "lite0")

    base, gain = study(rng, 6, 40), study(rng, 6, 40)
    audits = {}
    for s, (one, change) in enumerate(zip(base, gain, strict=True)):
        better = Estimate(one.value - change.value, one.influence - change.influence, 40, 39.0)
        audits["none", s], audits["fair", s] = of(one), of(better)
    row = compare_audits(audits).iloc[0]
    expected = stats.ttest_1samp([-change.value for change in gain], 0)
    assert row["p"] == pytest.approx(expected.pvalue)
    assert row["low_new"] < row["low"] < row["value"] < row["high"] < row["high_new"]
    assert (row["seeds"], row["n"], row["features"]) == ("0,1,2,3,4,5", 40, "lite0")
    few = compare_audits({key: own for key, own in audits.items() if key[1] < 3}).iloc[0]
    assert np.isnan(few["p"]) and np.isnan(few["p_new"]) and np.isfinite(few["high_new"])
    assert "without p" in few["note"]
    lone = compare_audits({key: own for key, own in audits.items() if key[1] < 1}).iloc[0]
    assert np.isnan(lone["low_new"]) and "needs more seeds" in lone["note"]


def runs_table(count: int) -> pd.DataFrame:
    rows = [
        {"method": "none", "metric": metric, "seed": seed, "n": 10, "value": float(seed),
         "low": np.nan, "high": np.nan, "note": ""}
        for seed in range(count)
        for metric in ("kid", "kid_worst")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_means_stand_beside_single_seeds_but_never_of_the_worst_level() -> None:
    table = over_seeds(runs_table(3))
    means = table[table["seeds"] == "0,1,2"]
    assert list(means["metric"]) == ["kid"] and means["value"].iloc[0] == pytest.approx(1.0)
    assert len(table) - len(means) == 6
    assert len(over_seeds(runs_table(1))) == 2


def test_means_of_a_table_know_new_patients_too() -> None:
    """Runs that agree say little of other patients; runs that differ say it all by themselves."""
    rows = [
        {"method": method, "metric": "kid", "seed": seed, "n": 101, "value": value,
         "low": value - 1.96, "high": value + 1.96, "note": ""}
        for method, values in {"alike": (3.0, 3.01, 2.99), "unlike": (0.0, 30.0, 60.0)}.items()
        for seed, value in enumerate(values)
    ]  # fmt: skip
    table = over_seeds(pd.DataFrame(rows))
    found = table[table["n_seeds"] == 3].set_index("method")
    alike, unlike = found.loc["alike"], found.loc["unlike"]
    assert alike["value"] == pytest.approx(3.0)
    # an error of 1 over 101 patients, shared by all runs: t with about 100 degrees of freedom
    assert alike["high"] - alike["value"] == pytest.approx(1.984, abs=0.003)
    these = 30 + 4.303 * 30 / 3**0.5  # t-interval of the runs, for these patients alone
    assert unlike["high"] == pytest.approx(these, abs=0.01)
    assert alike["note"].endswith("new subjects and new training runs")


def test_means_of_a_rate_stay_a_rate() -> None:
    rows = [
        {"metric": metric, "seed": seed, "n": 240, "value": value, "low": 0, "high": 0.03,
         "note": ""}
        for metric in ("finding_flips", "kid") for seed, value in enumerate((0.0, 0.008, 0.0))
    ]  # fmt: skip
    table = over_seeds(pd.DataFrame(rows))
    table = table[table["n_seeds"] == 3].set_index("metric")
    assert table.loc["finding_flips", "low"] == 0 > table.loc["kid", "low"]
    assert table.loc["finding_flips", "high"] == pytest.approx(table.loc["kid", "high"])
