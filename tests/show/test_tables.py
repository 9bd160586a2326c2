"""The study's tables: counts add up, notes travel, rows of other datasets stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fairdiff_lib.data.cohort import Cohort, spec_for
from fairdiff_lib.disk.files import write_table
from fairdiff_lib.disk.places import Places
from fairdiff_lib.settings.options import load_settings
from fairdiff_lib.show import tables

SIMULATED = "fairgenmed_simulated"


def small_cohort() -> Cohort:
    """Eight subjects, one of them with two images, one excluded."""
    spec = spec_for("ham10000")
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
    table = tables.cohort_table(small_cohort(), "ham10000")
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
    table = tables.cohort_table(small_cohort(), "ham10000")
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
    spec = spec_for("ham10000")
    table = tables.cohort_table(small_cohort(), "ham10000")
    chosen = (table["level"] == spec.levels("age")[1]) & (table["metric"] == "prevalence")
    assert len(table[chosen]) and table.loc[chosen, "value"].isna().all()
    assert (table.loc[chosen, "n"] == 0).all()


def test_split_table_finds_a_subject_in_two_splits() -> None:
    cohort = small_cohort()
    assert tables.split_table(cohort)["subjects_in_another_split"].sum() == 0
    cohort.table.loc[0, "split"] = "test"
    cohort.table.loc[1, "subject"] = "a"
    found = tables.split_table(cohort).set_index("split")["subjects_in_another_split"]
    assert found.to_dict() == {"train": 1, "val": 0, "test": 1}


def seeds_table(seeds: int) -> pd.DataFrame:
    rows = [
        {"method": "none", "metric": metric, "seed": seed, "n": 10, "value": float(seed),
         "low": np.nan, "high": np.nan, "note": ""}
        for seed in range(seeds)
        for metric in ("kid", "kid_worst")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_means_stand_beside_single_seeds_but_never_of_the_worst_level() -> None:
    table = tables.over_seeds(seeds_table(3))
    means = table[table["seeds"] == "0,1,2"]
    assert list(means["metric"]) == ["kid"] and means["value"].iloc[0] == pytest.approx(1.0)
    assert len(tables.single_seeds(table)) == 6
    assert len(tables.over_seeds(seeds_table(1))) == 2


def gates() -> pd.DataFrame:
    rows = [
        ("none", 0, "vae", 0.4, False),
        ("fairdiffusion", 0, "vae", 0.3, False),
        ("none", 0, "prompt", 0.9, True),
    ]
    table = pd.DataFrame(rows, columns=["method", "seed", "gate", "value", "passed"])
    return table.assign(dataset=SIMULATED, threshold=0.6, comparison=">=")


def test_a_failed_gate_is_one_line_that_reaches_every_row() -> None:
    lines = tables.failed_gates(gates())
    assert len(lines) == 1
    assert "vae" in lines[0] and "0.4" in lines[0] and ">= 0.6" in lines[0]
    table = pd.DataFrame({"value": [1.0, 2.0], "note": ["own", ""]})
    noted = tables.with_notes(table, lines)["note"].tolist()
    assert noted == [f"own; {lines[0]}", lines[0]]
    assert tables.with_notes(table, []) is table


def test_a_gate_that_many_runs_failed_is_a_range() -> None:
    runs = [gates().assign(seed=seed, value=seed / 10) for seed in range(8)]
    line = tables.failed_gates(pd.concat(runs, ignore_index=True))[0]
    assert "in 16 of 16 runs: 0 to 0.7" in line


def test_gate_notes_are_read_back_and_missing_gates_are_said(tmp_path: Path) -> None:
    layout = Places(load_settings("smoke", SIMULATED), figures_root=str(tmp_path))
    assert tables.gate_notes(layout) == ["gates were not run"]
    own = tables.as_written(gates())
    write_table(own, layout.figures / "tab_gates.csv")
    assert tables.gate_notes(layout) == tables.failed_gates(gates())
    other = Places(load_settings("smoke", "ham10000"), figures_root=str(tmp_path))
    write_table(own.assign(dataset="ham10000", passed=True), other.figures / "tab_gates.csv")
    assert tables.gate_notes_of_all(other) == [f"{SIMULATED}: {tables.failed_gates(gates())[0]}"]


def test_files_name_methods_and_seeds_and_memory_gets_its_own_names_back() -> None:
    written = tables.as_written(gates())
    assert "seed" not in written.columns and written["seeds"].tolist() == ["0", "0", "0"]
    assert list(tables.as_read(written).columns) == list(gates().columns)
    row = {name: "x" for name in tables.DOWNSTREAM_COLUMNS if name not in ("method", "features")}
    table = pd.DataFrame([{"source": "real", "sd": 0.0, "n_seeds": 1, **row}])
    written = tables.as_written(table)
    assert tuple(written.columns) == (*tables.DOWNSTREAM_COLUMNS, "sd", "n_seeds")
    assert written.loc[0, "method"] == "real" and written.loc[0, "features"] == ""
    back = tables.as_read(written)
    assert set(back.columns) == set(table.columns) and back.loc[0, "source"] == "real"
