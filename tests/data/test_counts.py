"""Counts add up; a share has its interval; a subject in two splits is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fairdiff_lib.data.cohort import Cohort, cohort_table, split_table
from fairdiff_lib.datasets import dataset_of


def small_cohort() -> Cohort:
    """Eight subjects, one of them with two images, one excluded."""
    spec = dataset_of("ham10000").spec()
    n = 9
    table = pd.DataFrame(
        {
            "subject": ["a", "b", "c", "d", "e", "f", "g", "h", "h"],
            "image": [f"i{i}" for i in range(n)],
            "path": ["x.jpg"] * n,
            "split": ["train"] * 4 + ["val", "val", "test", "test", "test"],
            "sex": ["Female", "Male"] * 4 + ["Male"],
            "age": ["under 60"] * n,
            "malignant": ["benign", "malignant", "benign", "benign", *["benign"] * 5],
            "dx": ["nv", "mel", "nv", "nv", *["nv"] * 5],
            "prompt": ["p"] * n,
            "excluded": ["", "", "", "sex unknown", "", "", "", "", ""],
        }
    )
    table["age"] = [spec.levels("age")[0]] * n
    return Cohort(spec, table, Path(), "hash")


def cell(table: pd.DataFrame, **wanted: str) -> pd.Series:
    chosen = table
    for column, value in wanted.items():
        chosen = chosen[chosen[column] == value]
    assert len(chosen) == 1
    return chosen.iloc[0]


def test_counts_are_of_subjects_and_leave_the_excluded_out() -> None:
    table = cohort_table(small_cohort(), "ham10000")
    overall = {"attribute": "overall", "level": "all"}
    assert cell(table, split="train", metric="count", **overall)["value"] == 3
    assert cell(table, split="test", metric="count", **overall)["value"] == 2
    assert cell(table, split="test", metric="images", **overall)["value"] == 3
    by_sex = [
        cell(table, split="all", metric="count", attribute="sex", level=level)["value"]
        for level in ("Female", "Male")
    ]
    assert sum(by_sex) == cell(table, split="all", metric="count", **overall)["value"] == 7


def test_prevalence_has_its_wilson_interval() -> None:
    table = cohort_table(small_cohort(), "ham10000")
    row = cell(
        table, split="train", attribute="overall", level="all", metric="prevalence",
        condition="malignant", condition_level="malignant",
    )  # fmt: skip
    z = 1.959964
    centre, n, p = (1 / 3 + z**2 / 6) / (1 + z**2 / 3), 3, 1 / 3
    reach = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    assert row["value"] == pytest.approx(p)
    assert (row["low"], row["high"]) == pytest.approx((centre - reach, centre + reach), abs=1e-5)


def test_prevalence_of_an_empty_level_is_nan() -> None:
    spec = dataset_of("ham10000").spec()
    table = cohort_table(small_cohort(), "ham10000")
    chosen = (table["level"] == spec.levels("age")[1]) & (table["metric"] == "prevalence")
    assert len(table[chosen]) and table.loc[chosen, "value"].isna().all()
    assert (table.loc[chosen, "n"] == 0).all()


def test_split_table_finds_a_subject_in_two_splits() -> None:
    cohort = small_cohort()
    assert split_table(cohort)["subjects_in_another_split"].sum() == 0
    cohort.table.loc[0, "split"] = "test"
    cohort.table.loc[1, "subject"] = "a"
    found = split_table(cohort).set_index("split")["subjects_in_another_split"]
    assert found.to_dict() == {"train": 1, "val": 0, "test": 1}
