"""Equivalent blur: the same degradation is the same number in every group, whatever its reals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fairdiff_lib.audit.audit import Audit, audit, kid_metric
from fairdiff_lib.audit.blur import (
    KERNEL_MEANS,
    Curves,
    blur_curves,
    blur_images,
    blur_metric,
    equivalent_blur,
    estimate_rows,
    kernel_means,
    same_corruption,
)
from fairdiff_lib.audit.decide import LARGER, decide
from fairdiff_lib.audit.estimate import Floats, Groups, group_units
from fairdiff_lib.audit.kid import Kernel, fit_kernel, kid, kid_unpaired
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.names import with_interval

LEVELS = {"race": ("Black", "White")}
RACES = np.repeat(["Black", "White"], [60, 140])
TABLE = pd.DataFrame({"subject": [f"s{i:03d}" for i in range(200)], "race": RACES})
GROUPS = group_units(TABLE, LEVELS)
KERNEL = Kernel(2.2)
SHARPNESS = np.array([1.0, 1.0, 0.3])  # how much of each feature a blur takes


def reals(rng: np.random.Generator) -> Floats:
    """White subjects' images are less varied."""
    spread = np.where(RACES == "Black", 1.0, 0.4)[:, None]
    return np.asarray(4.0 + spread * rng.normal(size=(200, 3)))


def faded(features: Floats, sigma: Floats | float) -> Floats:
    """What a blur does to the features: detail fades, as exp(-sigma^2 / 4)."""
    width = np.broadcast_to(np.asarray(sigma, dtype=float).reshape(-1, 1), (len(features), 1))
    return np.asarray(features * np.exp(-(width**2) / 4 * SHARPNESS))


def studied(seed: int, sigma: Floats | float) -> tuple[Audit, Audit, Curves]:
    """KID and equivalent blur of a generator that blurs other subjects' images."""
    rng = np.random.default_rng(seed)
    real = reals(rng)
    generated = faded(reals(rng), sigma)
    curves = blur_curves(KERNEL, real, lambda s: faded(real, s), GROUPS)
    found = [
        audit(metric, GROUPS, LEVELS, metric=name, secondary_below=50)
        for name, metric in (
            ("kid", kid_metric(KERNEL, real, generated)),
            ("equivalent_blur", blur_metric(KERNEL, real, generated, curves)),
        )
    ]
    return found[0], found[1], curves


def test_a_blur_is_found_again_in_every_group() -> None:
    whole, blur, _ = studied(0, 1.0)
    for key in blur.estimates:
        low, high = blur.estimates[key].interval(0.99)
        assert low < 1.0 < high and high - low < 0.8
    row = blur.contrasts.iloc[0]
    assert row["low"] < 0 < row["high"]
    assert whole.contrasts.iloc[0]["p"] < 0.01  # the same blur is "worse" where reals vary less


def test_a_group_that_is_blurred_more_is_found() -> None:
    _, blur, _ = studied(1, np.where(RACES == "Black", 1.5, 0.8))
    row = blur.contrasts.set_index("level").loc["Black"]
    assert row["low"] > 0 and row["p_adjusted"] < 0.01
    assert row["low"] < 0.7 < row["high"]


def test_a_perfect_generator_is_no_further_off_than_sharp_reals() -> None:
    found = [studied(seed, 0.0)[1].overall for seed in range(8)]
    assert all(one.interval()[0] == 0 for one in found)
    assert all(one.interval()[1] < 0.7 for one in found)
    assert any("no further off than sharp reals" in one.note for one in found)


@pytest.mark.parametrize("sigma", [0.0, 0.3, 1.0])
def test_the_error_is_of_the_size_of_the_interval_also_where_the_curve_is_flat(
    sigma: float,
) -> None:
    """By the curve's slope it was up to 17 times that, and so was what could have been missed."""
    for seed in range(8):
        for one in studied(seed, sigma)[1].estimates.values():
            low, high = one.interval(0.6827)
            assert 0.9 < 2 * one.standard_error / (high - low) < 2.1


@pytest.mark.parametrize("below", [0.5, 3.0, 10.0])
def test_a_kid_below_nought_leaves_an_interval_of_some_width(below: float) -> None:
    """As wide as that of a KID of 0 with this error: by chance alone a group isn't that sure."""
    real = reals(np.random.default_rng(2))
    curves = blur_curves(KERNEL, real, lambda s: faded(real, s), GROUPS)
    (own, *rest) = kid(KERNEL, real, reals(np.random.default_rng(3)), GROUPS)
    limits = [
        equivalent_blur([replace(own, value=value), *rest], curves)[0].interval()
        for value in (-below * own.standard_error, 0.0)
    ]
    assert limits[0] == pytest.approx(limits[1])
    assert limits[0][0] == 0 < 0.05 < limits[0][1]


def test_what_may_be_any_blur_is_at_least_some() -> None:
    """A curve that ends below the upper limit of KID: no upper end, a lower one, and a verdict."""
    real = reals(np.random.default_rng(2))
    curves = blur_curves(KERNEL, real, lambda s: faded(real, s), GROUPS, (0.0, 0.5, 1.0))
    kids = kid(KERNEL, real, faded(real, 0.97)[::-1], GROUPS)
    overall = equivalent_blur(kids, curves)[0]
    low, high = overall.interval()
    assert 0.5 < low < overall.value < 1.0 and high == np.inf
    assert with_interval(overall.value, low, high).endswith(f"(at least {low:.3g})")
    said = decide(overall, 0.1, 200)
    assert said.name == LARGER and "at least" in said.words


def test_what_no_blur_reaches_is_not_estimable_and_says_so() -> None:
    rng = np.random.default_rng(2)
    real = reals(rng)
    curves = blur_curves(KERNEL, real, lambda s: faded(real, s), GROUPS, (0.0, 0.2, 0.4))
    (overall, *_) = equivalent_blur(kid(KERNEL, real, real[::-1] + 3, GROUPS), curves)
    assert np.isnan(overall.value)
    assert "further off than a blur of 0.4 pixels (95% sure: 0.4 or more)" in overall.note
    with pytest.raises(InputError, match="rising from 0"):
        blur_curves(KERNEL, real, lambda s: real, GROUPS, (1.0, 2.0, 3.0))


def test_copies_of_the_reals_are_not_estimable_and_say_so() -> None:
    real = reals(np.random.default_rng(2))
    curves = blur_curves(KERNEL, real, lambda s: faded(real, s), GROUPS)
    for one in equivalent_blur(kid(KERNEL, real, real, GROUPS), curves):
        assert np.isnan(one.value)
        assert one.note == "not estimable: every pair of its subjects gives the same value"


def test_small_groups_keep_their_reason() -> None:
    table = TABLE.assign(race=np.where(np.arange(200) < 4, "Black", "White"))
    groups = group_units(table, LEVELS)
    real = reals(np.random.default_rng(3))
    curves = blur_curves(KERNEL, real, lambda s: faded(real, s), groups)
    few = equivalent_blur(kid(KERNEL, real, faded(real, 1.0), groups), curves)[1]
    assert few.note == "not estimable: fewer than 10 subjects"


def test_for_one_generator_curves_stop_above_it() -> None:
    real, seen = reals(np.random.default_rng(7)), []
    kids = kid(KERNEL, real, faded(real, 0.6)[::-1], GROUPS)

    def at(sigma: float) -> np.ndarray:
        seen.append(sigma)
        return faded(real, sigma)

    short = blur_curves(KERNEL, real, at, GROUPS, beyond=kids)
    assert 0.75 <= max(seen) < 4.0 and len(short.sigmas) == len(seen) + 1
    whole = blur_curves(KERNEL, real, lambda s: faded(real, s), GROUPS)
    for one, other in zip(*(equivalent_blur(kids, c) for c in (short, whole)), strict=True):
        np.testing.assert_allclose(one.interval(), other.interval(), atol=0.01)


def test_generated_images_of_other_subjects_have_an_equivalent_blur_too() -> None:
    rng = np.random.default_rng(8)
    real, other = reals(rng), reals(rng)
    kids = kid_unpaired(KERNEL, real, faded(other, 1.0), GROUPS, GROUPS)
    curves = blur_curves(KERNEL, real, lambda s: faded(real, s), GROUPS)
    for one in equivalent_blur(kids, curves):
        low, high = one.interval(0.99)
        assert low < 1.0 < high and len(one.influence) == 400


def test_a_curve_is_read_between_its_widths() -> None:
    real = reals(np.random.default_rng(9))
    curves = blur_curves(KERNEL, real, lambda s: faded(real, s), GROUPS)
    values = [curves.at(s)[0].value for s in (0.5, 0.6, 0.75)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(curves.known[2][0].value)


@pytest.mark.slow
def test_intervals_cover_and_equal_blur_is_no_disparity() -> None:
    """95% intervals of a group, and 5% alarms of the contrast, where KID alarms nearly always."""
    held = {"Black": 0, "White": 0}
    alarms = {"kid": 0, "blur": 0}
    runs = 1000
    for seed in range(runs):
        whole, blur, _ = studied(100 + seed, 1.0)
        for level in held:
            low, high = blur.estimates["race", level].interval()
            held[level] += low <= 1.0 <= high
        alarms["kid"] += whole.contrasts["p"].iloc[0] < 0.05
        alarms["blur"] += blur.contrasts["p"].iloc[0] < 0.05
    assert all(0.93 <= count / runs <= 0.97 for count in held.values()), held
    assert alarms["blur"] / runs <= 0.07 < 0.5 < alarms["kid"] / runs, alarms  # 3 standard errors


# -- images, controls and kernel means -------------------------------------------------------


def test_images_keep_their_mean_and_lose_detail() -> None:
    images = np.random.default_rng(4).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    soft = blur_images(images, 1.0)
    assert soft.dtype == np.uint8 and soft.shape == images.shape
    assert abs(soft.mean() - images.mean()) < 2
    assert soft.std() < 0.5 * images.std()
    np.testing.assert_array_equal(blur_images(images, 0.0), images)


def test_one_corruption_of_everybody_gives_a_contrast_of_kid() -> None:
    rng = np.random.default_rng(5)
    real = reals(rng)
    noisy = {"noise": real + 0.8 * rng.normal(size=real.shape), "blur": faded(real, 1.0)}
    table = same_corruption(KERNEL, real, noisy, GROUPS, LEVELS, secondary_below=50)
    assert list(table["corruption"]) == ["noise", "blur"]
    assert (table["role"] == "description").all() and (table["kid"] > 0).all()
    assert table.set_index("corruption").loc["blur", "p"] < 0.05


def test_kernel_means_are_the_parts_of_kid() -> None:
    rng = np.random.default_rng(6)
    table = pd.concat([TABLE, TABLE.iloc[:30]], ignore_index=True)  # some have two images
    groups: Groups = group_units(table, LEVELS)
    real = rng.normal(size=(230, 3))
    made = 0.8 * rng.normal(size=(230, 3)) + 0.3
    kernel = fit_kernel(real)
    means = kernel_means(kernel, real, made, groups)
    parts = [np.array([e.value for e in means[name]]) for name in KERNEL_MEANS]
    whole = [e.value for e in kid(kernel, real, made, groups)]
    np.testing.assert_allclose(parts[0] + parts[1] - 2 * parts[2], whole, atol=1e-12)
    within = kernel(real, real)
    other = groups.unit[:, None] != groups.unit[None, :]
    weight = 1 / np.bincount(groups.unit)[groups.unit]
    pairs = other * weight[:, None] * weight[None, :]
    assert parts[0][0] == pytest.approx((within * pairs).sum() / pairs.sum())
    rows = estimate_rows(means, groups)
    assert len(rows) == 9 and (rows["low"] < rows["value"]).all()
