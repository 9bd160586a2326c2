"""Over seeds: mean and interval, never the best, and no p from too few."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fairdiff_lib import seeds
from fairdiff_lib.config import InputError


def runs(values: dict[str, list[float]]) -> pd.DataFrame:
    """A table with one number per method and seed."""
    rows = [
        {"dataset": "toy", "method": method, "seed": seed, "attribute": "overall", "level": "all",
         "metric": "kid", "n": 100, "value": value, "low": value - 1, "high": value + 1, "note": ""}
        for method, numbers in values.items()
        for seed, value in enumerate(numbers)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_mean_and_t_interval_over_seeds() -> None:
    numbers = [1.0, 2.0, 4.0, 3.0, 2.5]
    row = seeds.summarise_seeds(runs({"none": numbers})).iloc[0]
    expected = stats.t.interval(0.95, 4, np.mean(numbers), stats.sem(numbers))
    assert (row["low"], row["high"]) == pytest.approx(expected)
    assert row["value"] == pytest.approx(2.5)
    assert row["sd"] == pytest.approx(np.std(numbers, ddof=1))
    assert row["n_seeds"] == 5
    assert row["seeds"] == "0,1,2,3,4"


def test_one_seed_keeps_its_interval_over_subjects_and_says_so() -> None:
    row = seeds.summarise_seeds(runs({"none": [2.0]})).iloc[0]
    assert (row["low"], row["value"], row["high"]) == (1, 2, 3)
    assert "comparing methods needs more seeds" in row["note"]


def test_fewer_than_five_seeds_are_shown_without_p() -> None:
    few = runs({"none": [1.0, 1.1, 1.2], "fair": [0.5, 0.7, 0.6]})
    assert "without p" in seeds.summarise_seeds(few)["note"].iloc[0]
    row = seeds.compare_methods(few).iloc[0]
    assert np.isnan(row["p"])
    assert row["value"] == pytest.approx(-0.5)
    assert row["low"] < -0.5 < row["high"]


def test_methods_are_paired_by_seed() -> None:
    base = [1.0, 5.0, 9.0, 2.0, 7.0, 4.0]
    fair = [b - 0.5 + e for b, e in zip(base, [0.1, -0.1, 0.05, 0.0, -0.05, 0.1], strict=True)]
    row = seeds.compare_methods(runs({"none": base, "fair": fair})).iloc[0]
    assert row["p"] == pytest.approx(stats.ttest_rel(fair, base).pvalue)
    assert row["p"] < 0.001  # unpaired: 0.8
    assert row["method"] == "fair"
    assert row["baseline"] == "none"


def test_missing_seeds_are_counted() -> None:
    row = seeds.summarise_seeds(runs({"none": [1.0, np.nan, 3.0]})).iloc[0]
    assert row["value"] == 2
    assert "estimable in 2 of 3 seeds" in row["note"]


def test_nothing_to_estimate_stays_nan_with_its_reason() -> None:
    table = runs({"none": [np.nan]}).assign(note="not estimable: fewer than 10 subjects")
    row = seeds.summarise_seeds(table).iloc[0]
    assert np.isnan(row["value"])
    assert row["note"] == "not estimable: fewer than 10 subjects"


def test_refuses_repeated_rows_and_an_absent_baseline() -> None:
    table = runs({"none": [1.0, 2.0]})
    with pytest.raises(InputError, match="repeats another's names"):
        seeds.summarise_seeds(pd.concat([table, table]))
    with pytest.raises(InputError, match="no rows of method 'random'"):
        seeds.compare_methods(table, baseline="random")
    with pytest.raises(InputError, match="column 'note' is missing"):
        seeds.summarise_seeds(table.drop(columns="note"))


def test_worst_levels_of_several_seeds_are_not_averaged() -> None:
    table = runs({"none": [1.0, 2.0]})
    worst = table.assign(metric="kid_worst", level=["Asian", "Black"])
    assert set(seeds.summarise_seeds(pd.concat([table, worst]))["metric"]) == {"kid"}
    assert len(seeds.summarise_seeds(worst.iloc[:1])) == 1
