"""One run's audits on features made by hand: the case mix, the second space, one pass for KID."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fairdiff_lib.audit.audit import crossed
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
        crossing, None, None,
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
    plain, standardised = run[2][:2]
    assert (plain.metric, standardised.metric) == ("kid", "kid_standardised")
    assert by_age(plain)["level"] == OLD and by_age(plain)["p"] < 0.001
    assert by_age(standardised)["p"] > 0.05
    assert abs(by_age(standardised)["value"]) < by_age(plain)["value"] / 4


def test_a_second_space_is_its_own_audit(run: Any) -> None:
    second = run[2][2]
    assert (second.metric, second.features, second.design.role) == ("kid", "random", "sensitivity")
    assert by_age(second)["p"] > 0.05
    assert run[2][3].metric == "denoising_loss"


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
    assert kids.loc["random", "value"] == audits[2].estimates["age", OLD].value
    assert {"es_kid", "kid_disparity", "kid_standardised", "es_denoising_loss"} <= set(
        table["metric"]
    )
    assert "sex x age" not in set(table["attribute"])
