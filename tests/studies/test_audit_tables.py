"""A study's audits put together: means over seeds, what is declared, what is exploratory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from fairdiff_lib.audit.audit import Audit, audit, crossed, kid_metric, mean_metric
from fairdiff_lib.audit.estimate import group_units
from fairdiff_lib.audit.kid import Kernel
from fairdiff_lib.studies import quality
from fairdiff_lib.studies.verdict.protocol import Protocol

KERNEL = Kernel(2.0)
LEVELS = {"sex": ("Female", "Male"), "age": ("young", "old")}
RULE = Protocol(dataset="toy", seeds=(0, 1), features="lite0", sensitivity="random")


def people(n: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({name: rng.choice(known, n) for name, known in LEVELS.items()})
    table.loc[:4, ["sex", "age"]] = ["Male", "old"]
    return table.assign(subject=[f"s{i}" for i in range(n)], image=[f"i{i}" for i in range(n)])


def study(
    n: int = 300,
) -> tuple[dict[quality.Run, list[Audit]], dict[str, list[str]]]:
    """Two methods, two seeds: KID in two spaces and a loss; the second method halves the shift."""
    table, crossing = crossed(people(n), LEVELS)
    groups = group_units(table, {**LEVELS, **crossing})
    rng = np.random.default_rng(1)
    real, found = rng.normal(size=(n, 3)), {}
    for seed in (0, 1):
        noise, loss = rng.normal(size=(n, 3)), rng.random(n)
        for method, shift in (("none", 0.6), ("fairdiffusion", 0.3)):
            own = []
            for features in ("lite0", "random"):
                metric = kid_metric(KERNEL, real, noise + shift)
                own.append(
                    audit(metric, groups, LEVELS, metric="kid", features=features,
                                   role="exploratory")
                )  # fmt: skip
            metric = mean_metric(loss)
            own.append(audit(metric, groups, LEVELS, metric="denoising_loss", role="exploratory"))
            found[method, seed] = own
    return found, crossing


def test_only_the_baselines_mean_is_declared() -> None:
    audits, _ = study()
    named = quality.with_means(audits, RULE)
    table = quality.study_contrasts(named, RULE)
    primary = table[table["role"] == "primary"]
    assert set(zip(primary["method"], primary["seeds"], strict=True)) == {("none", "0,1")}
    assert set(primary["features"]) == {"lite0"} and set(primary["metric"]) == {"kid"}
    rest = table[~table["role"].isin(["primary", "description"])]
    assert (rest["p_adjusted"] >= rest["p"] - 1e-12).all()
    assert rest["note"].str.contains("false discovery rate").all()
    assert set(table["seeds"]) == {"0", "1", "0,1"}


def test_the_smallest_effect_is_the_protocols_for_every_method() -> None:
    audits, _ = study()
    named = quality.with_means(audits, replace(RULE, smallest_kid=0.01))
    for own in named.values():
        assert own[0].design.smallest_effect == 0.01
        assert np.isnan(own[2].design.smallest_effect)  # none was declared for the loss


def test_methods_are_compared_in_every_space_and_no_p_comes_from_two_seeds() -> None:
    audits, _ = study()
    table = quality.study_differences(audits, RULE)
    overall = table[(table["level"] == "all") & (table["metric"] == "kid")]
    assert set(overall["features"]) == {"lite0", "random"}
    assert (overall["value"] < 0).all()  # the second method's KID is lower
    assert table["p"].isna().all() and table["p_adjusted"].isna().all()
    loss = table[(table["level"] == "all") & (table["metric"] == "denoising_loss")]
    assert loss["value"].iloc[0] == 0  # the same losses


def test_a_study_without_its_baseline_declares_nothing() -> None:
    audits, crossing = study()
    alone = {run: own for run, own in audits.items() if run[0] != "none"}
    named = quality.with_means(alone, RULE)
    table = quality.study_contrasts(named, RULE)
    assert "primary" not in set(table["role"]) and table["smallest_effect"].isna().all()
    assert quality.study_differences(alone, RULE).empty
    assert len(quality.study_intersections(named, crossing, RULE)) == 3 * 2 * 4


def test_intersections_are_shown_raw_and_shrunken() -> None:
    audits, crossing = study()
    named = quality.with_means(audits, RULE)
    table = quality.study_intersections(named, crossing, RULE)
    one = table[(table["method"] == "none") & (table["seeds"] == "0,1")]
    raw = one[one["metric"] == "kid"].set_index("level")
    own = one[one["metric"] == "kid_shrunk"].set_index("level")
    assert list(raw.index) == ["Female, young", "Female, old", "Male, young", "Male, old"]
    assert np.ptp(own["value"]) < np.ptp(raw["value"])
    assert own["note"].str.contains("empirical Bayes").all()
    assert raw["n"].sum() == 300
