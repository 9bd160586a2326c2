"""Quality metrics: closed forms, unbiasedness, what each score means, and refusals."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from fairdiff_lib.audit import quality
from fairdiff_lib.audit.estimate import Floats, Groups, difference, group_units
from fairdiff_lib.audit.fid import fid_as_released
from fairdiff_lib.audit.kid import Kernel, fit_kernel, kid, pair_sums, real_floor
from fairdiff_lib.settings.errors import InputError

KERNEL = Kernel(2.0)
LABELS = {"dataset": "toy", "method": "none", "seed": 0}


def people(**sizes: int) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """A table with one image per subject and the levels of attribute ``g``."""
    level = np.repeat(list(sizes), list(sizes.values()))
    table = pd.DataFrame({"subject": [f"s{i:04d}" for i in range(len(level))], "g": level})
    return table, {"g": list(sizes)}


def normal_kid(d: int, spread: float, shift: float, other: float) -> float:
    """KID between N(0, spread I) and N(shift, other I) in d dimensions for ``KERNEL``."""
    b = KERNEL.bandwidth**2

    def mean_kernel(variance: float, gap: float) -> float:
        scale = (b / (b + variance)) ** (d / 2)
        return float(scale * np.exp(-d * gap**2 / (2 * (b + variance))))

    within = mean_kernel(2 * spread, 0) + mean_kernel(2 * other, 0)
    return within - 2 * mean_kernel(spread + other, shift)


def draw(
    rng: np.random.Generator, n: int, spread: float, shift: float, other: float, at: float = 0.0
) -> tuple[Floats, Floats]:
    """n real and generated 4-d features, the reals around ``at``."""
    real = at + rng.normal(0, spread**0.5, (n, 4))
    return real, at + rng.normal(shift, other**0.5, (n, 4))


def naive_kid(real: Floats, generated: Floats, groups: Groups, member: Any) -> float:
    """The definition, one pair of units after the other."""
    units = np.flatnonzero(member)
    rows = {u: np.flatnonzero(groups.unit == u) for u in units}
    total = 0.0
    for i in units:
        for j in units:
            if i != j:
                a, b = rows[i], rows[j]
                total += KERNEL(real[a], real[b]).mean()
                total += KERNEL(generated[a], generated[b]).mean()
                total -= KERNEL(real[a], generated[b]).mean()
                total -= KERNEL(generated[a], real[b]).mean()
    return total / (len(units) * (len(units) - 1))


def test_kid_equals_its_definition_for_units_with_several_images() -> None:
    rng = np.random.default_rng(0)
    subjects = np.array([f"s{i}" for i in rng.integers(30, size=70)])
    level = np.where(pd.Series(subjects).str[1:].astype(int) < 14, "a", "b")
    groups = group_units(pd.DataFrame({"subject": subjects, "g": level}), {"g": ["a", "b"]})
    real, generated = draw(rng, 70, 1.0, 0.5, 1.5)
    found = kid(KERNEL, real, generated, groups, chunk=16)
    for estimate, member in zip(found, groups.members.T, strict=True):
        assert estimate.value == pytest.approx(
            naive_kid(real, generated, groups, member), abs=1e-12
        )
        assert estimate.n == member.sum()


def test_jackknife_variance_is_that_of_the_formula() -> None:
    rng = np.random.default_rng(1)
    table, levels = people(a=40)
    real, generated = draw(rng, 40, 1.0, 0.5, 1.0)
    estimate = kid(KERNEL, real, generated, group_units(table, levels))[0]
    h = KERNEL(real, real) + KERNEL(generated, generated)
    h -= KERNEL(real, generated) + KERNEL(generated, real)
    np.fill_diagonal(h, 0)
    a, n = h.sum(axis=1) / 39, 40
    variance = 4 * (n - 1) / (n * (n - 2) ** 2) * np.sum((a - a.mean()) ** 2)
    assert estimate.standard_error**2 == pytest.approx(variance, rel=1e-9)


def test_kid_is_unbiased_at_any_n_under_the_null() -> None:
    """Where generated and real follow one law, the mean over replications is zero."""
    rng, values = np.random.default_rng(2), []
    table, levels = people(small=20, large=120)
    groups = group_units(table, levels)
    for _ in range(200):
        small, large = draw(rng, 20, 1, 0, 1), draw(rng, 120, 2, 0, 2)
        features = [np.concatenate(pair) for pair in zip(small, large, strict=True)]
        values.append([e.value for e in kid(KERNEL, *features, groups)[1:]])
    mean = np.mean(values, axis=0)
    error = np.std(values, axis=0) / 200**0.5
    assert (np.abs(mean) < 3 * error).all()
    assert (error < 0.003).all()  # the biased form is off by 0.03 at n = 20


def test_contrast_alarms_at_its_level_and_covers() -> None:
    """Equal true KID, unequal real distributions and n: 5% alarms; a planted gap is covered."""
    rng, alarms, covered = np.random.default_rng(3), [], []
    table, levels = people(small=40, large=120)
    groups = group_units(table, levels)
    other = 1.8
    truth = normal_kid(4, 1, 0.3, other) - normal_kid(4, 1, 0.3, 1)
    for _ in range(400):
        large = draw(rng, 120, 1, 0.3, 1)
        for spread, outcomes in ((1.0, alarms), (other, covered)):
            small = draw(rng, 40, 1, 0.3, spread, at=2.0)
            features = [np.concatenate(pair) for pair in zip(small, large, strict=True)]
            found = kid(KERNEL, *features, groups)
            gap = difference(found[1], found[2])
            low, high = gap.interval()
            outcomes.append(gap.p_value() < 0.05 if spread == 1 else low <= truth <= high)
    assert 0.02 <= np.mean(alarms) <= 0.07
    assert 0.93 <= np.mean(covered) <= 0.98


def test_planted_gap_is_recovered() -> None:
    rng = np.random.default_rng(4)
    table, levels = people(hard=300, easy=600)
    hard, easy = draw(rng, 300, 1, 0.6, 1), draw(rng, 600, 1, 0.1, 1)
    features = [np.concatenate(pair) for pair in zip(hard, easy, strict=True)]
    found = kid(KERNEL, *features, group_units(table, levels))
    gap = difference(found[1], found[2])
    truth = normal_kid(4, 1, 0.6, 1) - normal_kid(4, 1, 0.1, 1)
    assert abs(gap.value - truth) < 3 * gap.standard_error
    assert gap.p_value() < 1e-6


def test_order_and_chunk_do_not_change_anything() -> None:
    rng = np.random.default_rng(5)
    table, levels = people(a=30, b=50)
    real, generated = draw(rng, 80, 1, 0.4, 1)
    order = rng.permutation(80)
    first = quality.quality_table(
        real, generated, table, levels, KERNEL, features="toy", labels=LABELS
    )
    second = quality.quality_table(
        real[order], generated[order], table.iloc[order], levels, KERNEL, features="toy",
        labels=LABELS,
    )  # fmt: skip
    pd.testing.assert_frame_equal(first, second, rtol=1e-9, atol=1e-12)
    groups = group_units(table, levels)
    whole, parts = (pair_sums(KERNEL, real, generated, groups, chunk=chunk) for chunk in (80, 7))
    for a, b in zip(dataclasses.astuple(whole), dataclasses.astuple(parts), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_kid_between_two_methods_uses_the_shared_reals() -> None:
    """Paired on the same subjects, a difference is known better than from two separate sets."""
    rng = np.random.default_rng(6)
    table, levels = people(a=200)
    groups = group_units(table, levels)
    real, worse = draw(rng, 200, 1, 0.8, 1)
    better = worse - 0.05
    first, second = (kid(KERNEL, real, y, groups)[0] for y in (worse, better))
    gap = difference(first, second)
    apart = (first.standard_error**2 + second.standard_error**2) ** 0.5
    assert gap.standard_error < 0.2 * apart
    assert gap.interval()[0] > 0


def test_real_floor_is_centred_on_zero_and_narrows_with_n() -> None:
    rng = np.random.default_rng(7)
    widths = []
    for n in (60, 600):
        real = rng.normal(size=(n, 4))
        splits = real_floor(KERNEL, real, np.arange(n), np.ones(n, dtype=bool), splits=200)
        assert abs(splits.mean()) < 4 * splits.std() / 200**0.5 + 0.2 / n
        widths.append(splits.std())
    assert widths[1] < 0.2 * widths[0]  # it shrinks as 1 / n


def test_kernel_bandwidth_is_the_median_distance() -> None:
    points = np.array([[0.0], [1.0], [3.0]])
    assert fit_kernel(points).bandwidth == pytest.approx(2.0)


def test_inception_score_of_certain_and_of_uniform_classes() -> None:
    assert quality.inception_score(np.eye(4)[np.arange(40) % 4]) == pytest.approx(4, rel=1e-4)
    assert quality.inception_score(np.full((40, 4), 0.25)) == pytest.approx(1, rel=1e-6)


def test_inception_score_is_the_same_to_the_last_bit_whatever_was_drawn_before() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(5), 37)
    scores = set()
    for seed in range(8):
        torch.manual_seed(seed)
        scores.add(quality.inception_score(probabilities))
    assert len(scores) == 1


def test_what_nobody_can_estimate_is_said_once() -> None:
    """FID of 40 features needs 120 subjects: neither all nor a level of 100 get a row of its own.

    Of 8 features all and the larger level have one, and the smaller level its reason.
    """
    rng = np.random.default_rng(3)
    table, levels = people(a=20, b=80)
    (name,) = levels

    def rows(width: int) -> pd.DataFrame:
        real, made = rng.normal(size=(2, 100, width))
        found = quality.quality_table(real, made, table, levels, fit_kernel(real), features="f",
                                      labels={}, train=(real, table))  # fmt: skip
        return found[found["metric"].isin(["fid", "mifid"])]

    few = rows(40)
    assert few["attribute"].tolist() == ["overall"] * 2
    assert few["note"].str.contains("needs 120").all()
    many = rows(8).set_index(["metric", "attribute", "level"])
    larger = [(metric, name, "b") for metric in ("fid", "mifid")]
    assert len(many) == 6 and np.isfinite(many.loc[larger, "value"]).all()
    assert "needs 24" in many.loc[("fid", name, "a"), "note"]


def test_mifid_punishes_copies_of_training_images() -> None:
    rng = np.random.default_rng(11)
    train = rng.normal(size=(200, 8))
    fresh, copies = rng.normal(size=(200, 8)), train[rng.permutation(200)] + 1e-3
    assert quality.mifid(train, copies) > fid_as_released(train, copies) * 100
    assert quality.mifid(train, fresh) < fid_as_released(train, fresh) * 20


def test_mode_collapse_has_high_precision_and_low_recall() -> None:
    rng = np.random.default_rng(12)
    real = rng.normal(size=(300, 4))
    collapsed = 0.05 * rng.normal(size=(300, 4))
    scores = {k: v.mean() for k, v in quality.manifold_scores(real, collapsed).items()}
    assert scores["precision"] > 0.95
    assert scores["recall"] < 0.1
    assert scores["coverage"] < 0.3
    wide = {k: v.mean() for k, v in quality.manifold_scores(real, 4 * real[::-1] + 0.1).items()}
    assert wide["precision"] < 0.4


def test_a_training_subject_with_two_findings_is_in_mifid_of_both() -> None:
    rng = np.random.default_rng(16)
    table = pd.DataFrame({"subject": range(60), "eye": np.repeat(["well", "ill"], 30)})
    real, made = rng.normal(size=(2, 60, 4))
    train = rng.normal(size=(60, 4))
    learned = table.assign(subject=[k % 30 for k in range(60)])  # an eye of each kind
    found = quality.quality_table(real, made, table, {"eye": ("well", "ill")}, fit_kernel(real),
                                  features="f", labels={}, train=(train, learned))  # fmt: skip
    values = found[found["metric"] == "mifid"].set_index("level")["value"]
    assert values["well"] == pytest.approx(quality.mifid(train[:30], made[:30]))
    assert values["ill"] == pytest.approx(quality.mifid(train[30:], made[30:]))
    assert values["all"] == pytest.approx(quality.mifid(train, made))


def test_zero_features_have_no_mifid() -> None:
    train = np.random.default_rng(15).normal(size=(50, 4))
    assert np.isnan(quality.mifid(train, np.zeros((50, 4))))


def full_table(n: int = 60) -> pd.DataFrame:
    """Quality of a toy generator in which one level has three subjects and one has none."""
    rng = np.random.default_rng(13)
    table, levels = people(many=n - 3, few=3)
    levels["g"].append("none")
    real, generated = draw(rng, n, 1, 0.5, 1)
    return quality.quality_table(
        real, generated, table, levels, KERNEL, features="toy", labels=LABELS,
        train=(real + 0.01, table), probabilities=rng.dirichlet(np.ones(3), n),
    )  # fmt: skip


def test_table_has_every_group_and_says_why_a_value_is_missing() -> None:
    table = full_table()
    assert list(table.columns) == [*LABELS, *quality.COLUMNS]
    assert table.groupby(["attribute", "level"])["metric"].nunique().eq(10).all()
    counts = table.groupby("level", sort=False)["n"].first().to_dict()
    assert counts == {"all": 60, "many": 57, "few": 3, "none": 0}
    missing = table[table["value"].isna()]
    assert set(missing["level"]) == {"few", "none"}
    assert (missing["note"] != "").all()
    kept = table[table["metric"].eq("kid") & table["level"].eq("many")].iloc[0]
    assert kept["low"] < kept["value"] < kept["high"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"real": np.zeros((5, 4))}, "real features: shape"),
        ({"generated": np.zeros((60, 3))}, "4 columns real, 3 generated"),
        ({"real": np.full((60, 4), np.nan)}, "row 0 has a value that is not finite"),
        ({"levels": {"h": ["x"]}}, "column 'h' is missing"),
        ({"levels": {"g": ["a"]}}, "g is 'b'; expected one of a"),
        ({"subject": ["s"] * 60}, "g has two levels"),
    ],
)
def test_bad_input_is_named_in_one_line(change: dict[str, Any], words: str) -> None:
    table, levels = people(a=30, b=30)
    real, generated = draw(np.random.default_rng(14), 60, 1, 0, 1)
    if "subject" in change:
        table["subject"] = change["subject"]
    with pytest.raises(InputError, match=words) as caught:
        quality.quality_table(
            change.get("real", real), change.get("generated", generated), table,
            change.get("levels", levels), KERNEL, features="toy", labels=LABELS,
        )  # fmt: skip
    assert "\n" not in str(caught.value)


def test_kernel_refuses_features_without_spread() -> None:
    with pytest.raises(InputError, match="no bandwidth"):
        fit_kernel(np.ones((20, 3)))
