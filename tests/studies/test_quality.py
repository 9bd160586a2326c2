"""One run's audits on features made by hand: the case mix, the second space, one pass for KID."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fairdiff_lib.audit.audit import crossed
from fairdiff_lib.audit.blur import blur_curves
from fairdiff_lib.audit.estimate import group_units
from fairdiff_lib.audit.kid import Kernel, kid
from fairdiff_lib.audit.quality import COLUMNS
from fairdiff_lib.classify.features import RandomConvExtractor, Scale
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.datasets import dataset_of, load_settings
from fairdiff_lib.disk.places import Places
from fairdiff_lib.studies import quality as auditing
from fairdiff_lib.study import Study

N = 600
SPEC = dataset_of("ham10000").spec()
YOUNG, OLD = SPEC.levels("age")


class Reader:
    """Stands for the classifier: says one half to everything."""

    def predict(self, images: Any) -> dict[str, np.ndarray]:
        return {"malignant": np.full((N, 2), 0.5)}


class Named(RandomConvExtractor):
    """An extractor that only lends its name."""

    def __init__(self, name: str) -> None:
        self.name = name


def fixed(real: np.ndarray) -> auditing.Fixed:
    """A test split in which 60% of the older and 10% of the younger have a malignant lesion."""
    rng = np.random.default_rng(0)
    old = rng.random(N) < 0.4
    malignant = rng.random(N) < np.where(old, 0.6, 0.1)
    table = pd.DataFrame(
        {
            "subject": [f"s{i}" for i in range(N)],
            "image": [f"i{i}" for i in range(N)],
            "split": np.where(np.arange(N) < 2, "train", "test"),
            "sex": rng.choice(["Female", "Male"], N),
            "age": np.where(old, OLD, YOUNG),
            "malignant": np.where(malignant, "malignant", "benign"),
            "dx": "nv",
            "prompt": "p",
            "excluded": "",
        }
    )
    everyone = table.assign(split="test")
    cohort = Cohort(SPEC, pd.concat([table[:2], everyone], ignore_index=True), Path(), "hash")
    settings = load_settings("smoke", "ham10000")
    levels = {a.name: a.levels for a in SPEC.attributes}
    test, crossing = crossed(cohort.split("test").table.reset_index(drop=True), levels)
    groups = group_units(test, {**levels, "malignant": SPEC.levels("malignant"), **crossing})
    spaces = tuple(
        auditing.Space(Named(name), Path(), Scale(np.zeros(3), np.ones(3)), Kernel(2.0),
                       real[:2], real)
        for name in ("lite0", "random")
    )  # fmt: skip
    study = Study(settings, Places(settings))
    study.__dict__["cohort"] = cohort
    return auditing.Fixed(
        study, Reader(), spaces, real, test, groups,  # type: ignore[arg-type]
        blur_curves(Kernel(2.0), real, lambda sigma: real + sigma, groups),
        crossing, None, None, None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run() -> tuple[auditing.Fixed, list[np.ndarray], list[auditing.Audit]]:
    """Images of malignant lesions are off, whoever has them; the second space sees nothing."""
    rng = np.random.default_rng(1)
    real = rng.normal(size=(N, 3))
    own = fixed(real)
    bad = (own.test["malignant"] == "malignant").to_numpy()[:, None]
    made = [rng.normal(size=(N, 3)) + 1.0 * bad, rng.normal(size=(N, 3))]
    return own, made, auditing.run_audits(own, made, rng.random(N))


def by_age(audit: auditing.Audit) -> pd.Series:
    table = audit.contrasts
    return table[table["attribute"] == "age"].iloc[0]


def test_a_group_with_more_disease_is_not_called_worse_for_it(run: Any) -> None:
    plain, standardised, _ = run[2][:3]
    assert (plain.metric, standardised.metric) == ("kid", "kid_standardised")
    assert by_age(plain)["level"] == OLD and by_age(plain)["p"] < 0.001
    assert by_age(standardised)["p"] > 0.05
    assert abs(by_age(standardised)["value"]) < by_age(plain)["value"] / 4


def test_a_second_space_is_its_own_audit(run: Any) -> None:
    second = run[2][3]
    assert (second.metric, second.features, second.design.role) == ("kid", "random", "sensitivity")
    assert by_age(second)["p"] > 0.05
    assert run[2][4].metric == "denoising_loss"


def test_each_group_is_given_the_blur_that_is_as_far_off(run: Any) -> None:
    """A blur of s moves every feature by s, as the generator moves the malignant by 1."""
    one = run[2][2]
    assert one.metric == "equivalent_blur" and one.design.smallest_effect == 0.1
    low, high = one.estimates["malignant", "malignant"].interval()
    assert low < 1.0 < high and high - low < 0.4
    assert one.estimates["malignant", "benign"].value < 0.3
    assert by_age(one)["p_worse"] < 0.001 < 0.999 < by_age(one)["p_better"]


def test_what_one_blur_of_everybody_makes_stands_beside(run: Any) -> None:
    own, _, audits = run
    design = {"secondary_below": 50, "features": "lite0"}
    blur = audits[2].overall.value
    table = auditing.alike_by_blur(own.curves, blur, audits[0].attributes, design)
    assert table["kid"].iloc[0] == pytest.approx(audits[0].overall.value, rel=0.01)
    old = table[table["attribute"] == "age"].iloc[0]
    assert abs(old["value"]) < by_age(audits[0])["value"] / 4  # everybody is treated alike
    assert f"{blur:.2f} pixels" in old["corruption"] and old["role"] == "description"


def test_further_looks_have_a_row_per_group(run: Any) -> None:
    own, made, _ = run
    table = auditing.further_table(own, made[0])
    assert tuple(table.columns) == COLUMNS
    rows = table.set_index(["metric", "level"])["value"]
    assert rows["c2st_accuracy", "malignant"] > rows["c2st_accuracy", "benign"] + 0.1
    kid = [rows[name, "all"] for name in ("kernel_real_real", "kernel_made_made")]
    assert sum(kid) - 2 * rows["kernel_real_made", "all"] == pytest.approx(
        run[2][0].overall.value, abs=1e-9
    )
    assert rows["near_identical", "all"] < 0.01
    assert rows["clipped_coverage", YOUNG] > rows["clipped_coverage", OLD]


def test_near_identical_images_have_no_interval(run: Any) -> None:
    own, made, _ = run
    copied = made[0].copy()
    old = np.flatnonzero((own.test["age"] == OLD).to_numpy())
    copied[old] = copied[old[:5]].repeat(len(old) // 5 + 1, axis=0)[: len(old)]
    kid_of = auditing.run_audits(own, [copied, made[1]], None)[0].estimates
    assert np.isnan(kid_of["age", OLD].interval()[0]) and "identical" in kid_of["age", OLD].note
    assert np.isfinite(kid_of["age", YOUNG].interval()[0])


def test_intersections_come_from_the_same_pass(run: Any) -> None:
    own, made, audits = run
    assert ("sex x age", f"Female, {OLD}") in audits[0].estimates
    alone = kid(own.spaces[0].kernel, own.spaces[0].test, made[0], own.groups)
    values = [estimate.value for estimate in audits[0].estimates.values()]
    np.testing.assert_allclose(values, [estimate.value for estimate in alone])


def test_the_table_keeps_its_columns_and_tells_spaces_apart(run: Any) -> None:
    own, made, audits = run
    table = auditing.run_table(own, np.zeros((N, 3, 8, 8), np.uint8), made[0], audits)
    assert tuple(table.columns) == COLUMNS
    assert not table.duplicated(["attribute", "level", "metric", "features"]).any()
    kids = table[(table["metric"] == "kid") & (table["level"] == OLD)].set_index("features")
    assert kids.loc["lite0", "value"] == audits[0].estimates["age", OLD].value
    assert kids.loc["random", "value"] == audits[3].estimates["age", OLD].value
    assert {"es_kid", "kid_disparity", "kid_standardised", "es_denoising_loss"} <= set(
        table["metric"]
    )
    assert "sex x age" not in set(table["attribute"])
