"""KID in every design: many images, uneven units, unpaired sets, a common case mix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fairdiff_lib.audit.estimate import (
    Bools,
    Estimate,
    Floats,
    Groups,
    Ints,
    difference,
    group_units,
    root_limits,
    skewed,
)
from fairdiff_lib.audit.kid import (
    SINGLE_ABOVE,
    Kernel,
    _scaled,
    kid,
    kid_unpaired,
    partner_sums,
    real_floor,
    shares,
    standardised_kid,
)
from fairdiff_lib.settings.errors import InputError

KERNEL = Kernel(2.0)
CONDITION = {"disease": ("no", "yes")}


def split_groups(sizes: Mapping[str, int], unit: Sequence[int] | None = None) -> Groups:
    """Groups of attribute ``g``, as many units in each as said; a row per unit without ``unit``."""
    level = np.repeat(list(sizes), list(sizes.values()))
    rows = np.arange(len(level)) if unit is None else np.asarray(unit)
    names = [f"s{i:04d}" for i in rows]
    return group_units(pd.DataFrame({"subject": names, "g": level[rows]}), {"g": list(sizes)})


def mean_kernel(gap: Floats, variance: float) -> float:
    """Mean of ``KERNEL`` over two normals ``gap`` apart whose variances sum to ``variance``."""
    square = KERNEL.bandwidth**2
    total = square + variance
    return float((square / total) ** (len(gap) / 2) * np.exp(-gap @ gap / (2 * total)))


def h_of_units(real: Floats, generated: Floats, own: Ints, made: Ints) -> Floats:  # [U, U]
    """h between all units, from the definition."""
    units = own.max() + 1
    table = np.empty((units, units))
    for i in range(units):
        for j in range(units):
            x, y = (real[own == i], real[own == j]), (generated[made == i], generated[made == j])
            table[i, j] = KERNEL(*x).mean() + KERNEL(*y).mean()
            table[i, j] -= KERNEL(x[0], y[1]).mean() + KERNEL(y[0], x[1]).mean()
    return table


def mean_of_pairs(h: Floats, first: Bools, second: Bools) -> float:
    """Mean of h over pairs of different units, one in each set."""
    chosen = first[:, None] & second[None, :] & ~np.eye(len(h), dtype=bool)
    return float(h[chosen].mean())


def assert_same(found: Sequence[Estimate], wanted: Sequence[Estimate], tolerance: float) -> None:
    """Values to ``tolerance`` of themselves or their errors; influence, of its largest."""
    for one, other in zip(found, wanted, strict=True):
        scale = max(abs(other.value), other.standard_error)
        assert abs(one.value - other.value) <= tolerance * scale
        largest = np.abs(other.influence).max()
        assert np.abs(one.influence - other.influence).max() <= tolerance * largest


# -- many images -----------------------------------------------------------------------------


def many_images(n: int = 400) -> tuple[Floats, Floats, Groups]:
    """Correlated features, far from the origin as those of networks are, and four groups."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(8, 64)) / 3
    real = 5 + rng.normal(size=(n, 8)) @ mix + 0.2 * rng.normal(size=(n, 64))
    generated = 5.1 + 1.3 * rng.normal(size=(n, 8)) @ mix + 0.2 * rng.normal(size=(n, 64))
    return real, generated, split_groups({"a": 200, "b": 150, "c": 50})


def test_float32_products_change_a_kid_by_less_than_a_millionth() -> None:
    real, generated, groups = many_images()
    slow = kid(Kernel(10.0), real, generated, groups, exact=True)
    fast = kid(Kernel(10.0), real, generated, groups, exact=False, chunk=64)
    assert fast[0].value != slow[0].value  # the two paths differ, or nothing is compared
    assert_same(fast, slow, 1e-6)


def test_float32_products_are_used_for_many_images_and_never_for_far_ones() -> None:
    few, many = np.zeros((10, 1)), np.zeros((SINGLE_ABOVE + 1, 1))
    far = np.array([[0.0], [1e4]])
    dtypes = [_scaled(1.0, rows, None)[0].dtype for rows in (few, many, far)]
    assert dtypes == [np.float64, np.float32, np.float64]
    assert _scaled(1.0, far, False)[0].dtype == np.float64


def test_a_far_image_does_not_spoil_the_others() -> None:
    real, generated, groups = many_images()
    real[0] += 1e6
    assert_same(
        kid(KERNEL, real, generated, groups, exact=False),
        kid(KERNEL, real, generated, groups, exact=True),
        1e-12,
    )


def test_overlapping_groups_are_summed_by_kinds_of_units() -> None:
    """Sums over each kind of unit once, and over each group by itself, are the same."""
    rng = np.random.default_rng(1)
    rows, unit = rng.normal(size=(60, 3)), np.arange(60)
    basis = np.stack([np.arange(60) < k for k in (60, 30, 30, 45)], axis=1)  # 3 kinds, 4 groups
    together = partner_sums(2.0, rows, unit, np.ones(60), basis)
    for m in range(4):
        alone = partner_sums(2.0, rows, unit, np.ones(60), basis[:, [m]])
        np.testing.assert_allclose(together[:, [m]], alone, atol=1e-12)


# -- uneven units ----------------------------------------------------------------------------


def test_units_may_have_other_numbers_of_generated_images() -> None:
    rng = np.random.default_rng(2)
    own = np.sort(np.concatenate([np.arange(24), rng.integers(24, size=10)]))
    made = rng.permutation(np.concatenate([np.arange(24), rng.integers(24, size=60)]))
    groups = split_groups({"a": 14, "b": 10}, own.tolist())
    real, generated = rng.normal(size=(34, 3)), rng.normal(0.5, 1, size=(84, 3))
    h = h_of_units(real, generated, own, made)
    found = kid(KERNEL, real, generated, groups, generated_unit=made)
    for estimate, member in zip(found, groups.members.T, strict=True):
        assert estimate.value == pytest.approx(mean_of_pairs(h, member, member), abs=1e-12)
        inside = h[np.ix_(member, member)]
        n, a = len(inside), (inside.sum(axis=1) - np.diag(inside)) / (len(inside) - 1)
        variance = 4 * (n - 1) / (n * (n - 2) ** 2) * np.sum((a - a.mean()) ** 2)
        assert estimate.standard_error**2 == pytest.approx(variance, rel=1e-9)


def test_five_generated_images_per_subject_narrow_the_interval() -> None:
    rng = np.random.default_rng(3)
    groups, unit = split_groups({"a": 200}), np.repeat(np.arange(200), 5)
    real, generated = rng.normal(size=(200, 4)), rng.normal(0.4, 1, size=(1000, 4))
    five = kid(KERNEL, real, generated, groups, generated_unit=unit)[0]
    one = kid(KERNEL, real, generated[::5], groups)[0]
    assert five.standard_error < 0.9 * one.standard_error
    assert abs(five.value - one.value) < 3 * one.standard_error


# -- unpaired sets ---------------------------------------------------------------------------


def test_unpaired_kid_equals_its_definition() -> None:
    rng = np.random.default_rng(4)
    own, made = np.sort(rng.integers(12, size=30)), np.sort(rng.integers(15, size=40))
    own, made = (np.unique(u, return_inverse=True)[1] for u in (own, made))
    groups = group_units(pd.DataFrame({"subject": [f"r{i:02d}" for i in own]}), {})
    others = group_units(pd.DataFrame({"subject": [f"g{i:02d}" for i in made]}), {})
    real, generated = rng.normal(size=(30, 3)), rng.normal(0.7, 1, size=(40, 3))

    def mean(left: Floats, right: Floats, a: Ints, b: Ints, same: bool) -> float:
        units = [(i, j) for i in np.unique(a) for j in np.unique(b) if not (same and i == j)]
        return float(np.mean([KERNEL(left[a == i], right[b == j]).mean() for i, j in units]))

    wanted = mean(real, real, own, own, True) + mean(generated, generated, made, made, True)
    wanted -= 2 * mean(real, generated, own, made, False)
    found = kid_unpaired(KERNEL, real, generated, groups, others)[0]
    assert found.value == pytest.approx(wanted, abs=1e-12)
    assert found.n == min(own.max(), made.max()) + 1
    assert len(found.influence) == own.max() + made.max() + 2


def test_unpaired_kid_has_the_error_that_it_states() -> None:
    """Two groups of a user's images: error against Monte Carlo, coverage of a planted gap."""
    rng, groups = np.random.default_rng(5), split_groups({"small": 80, "large": 160})
    others = split_groups({"small": 120, "large": 90})
    gaps = np.repeat([0.8, 0.4], [120, 90])[:, None]
    truth = [
        2 * mean_kernel(np.zeros(3), 2) - 2 * mean_kernel(np.full(3, g), 2) for g in (0.8, 0.4)
    ]
    values, errors, covered = [], [], []
    for _ in range(500):
        real, generated = rng.normal(size=(240, 3)), gaps + rng.normal(size=(210, 3))
        found = kid_unpaired(KERNEL, real, generated, groups, others)[1:]
        values.append([e.value for e in found])
        errors.append([e.standard_error for e in found])
        low, high = difference(*found).interval()
        covered.append(low <= truth[0] - truth[1] <= high)
    spread = np.std(values, axis=0)
    assert (np.abs(np.mean(values, axis=0) - truth) < 3 * spread / 500**0.5).all()
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(errors), axis=0)), spread, rtol=0.1)
    assert 0.93 <= np.mean(covered) <= 0.98


def test_unpaired_groups_too_small_say_which_side() -> None:
    rng = np.random.default_rng(6)
    groups, others = split_groups({"a": 30, "b": 5}), split_groups({"a": 4, "b": 40})
    found = kid_unpaired(KERNEL, rng.normal(size=(35, 2)), rng.normal(size=(44, 2)), groups, others)
    assert [e.n for e in found] == [35, 4, 5]
    assert "fewer than 10 generated subjects" in found[1].note
    assert "fewer than 10 real subjects" in found[2].note


# -- a common case mix -----------------------------------------------------------------------


def cases(*cells: tuple[str, str, int]) -> tuple[Groups, Groups, Floats]:
    """Groups, strata and whether a unit is ill [U], from (group, disease, units)."""
    names = [(g, c) for g, c, n in cells for _ in range(n)]
    table = pd.DataFrame(names, columns=["g", "disease"])
    table["subject"] = [f"s{i:04d}" for i in range(len(table))]
    levels = {"g": list(dict.fromkeys(table["g"]))}
    ill = table["disease"].eq("yes").to_numpy(dtype=np.float64)
    return group_units(table, levels), group_units(table, CONDITION), ill


MIX = (("low", "no", 80), ("low", "yes", 20), ("high", "no", 40), ("high", "yes", 60))
WEIGHTS = {"no": 0.7, "yes": 0.3}
SHIFT, ILLNESS = 1.8, np.array([1.5, 0.0])  # the generator errs in ill patients alone


def images(rng: np.random.Generator, ill: Floats) -> tuple[Floats, Floats]:
    """Real images and those of a generator that treats equal patients equally."""
    centre = ill[:, None] * ILLNESS
    real = centre + rng.normal(size=(len(ill), 2))
    return real, centre + np.outer(ill, [0, SHIFT]) + rng.normal(size=(len(ill), 2))


def true_h(first: float, second: float) -> float:
    """Mean of h over two patients, ill (1) or not (0), in closed form."""
    x = [ill * ILLNESS for ill in (first, second)]
    y = [ill * (ILLNESS + np.array([0, SHIFT])) for ill in (first, second)]
    same = mean_kernel(x[0] - x[1], 2) + mean_kernel(y[0] - y[1], 2)
    return same - mean_kernel(x[0] - y[1], 2) - mean_kernel(y[0] - x[1], 2)


def true_kid(ill: float) -> float:
    """KID of a law in which this share is ill."""
    mix = ((0.0, 1 - ill), (1.0, ill))
    return sum(w * v * true_h(a, b) for a, w in mix for b, v in mix)


def mean_plain_kid(ill: int, n: int = 100) -> float:
    """Mean of the plain KID of a group with exactly so many ill units."""
    within = (1 - ill / n) * true_h(0, 0) + ill / n * true_h(1, 1)
    return true_kid(ill / n) + (true_kid(ill / n) - within) / (n - 1)


def test_standardised_kid_equals_its_definition() -> None:
    rng = np.random.default_rng(7)
    groups, strata, ill = cases(("a", "no", 8), ("a", "yes", 6), ("b", "no", 5), ("b", "yes", 9))
    real, generated = images(rng, ill)
    unit = np.arange(len(ill))
    h = h_of_units(real, generated, unit, unit)
    for estimate, member in zip(
        standardised_kid(KERNEL, real, generated, groups, strata, WEIGHTS),
        groups.members.T,
        strict=True,
    ):
        parts = [(member & (ill == code), w) for code, w in enumerate(WEIGHTS.values())]
        wanted = sum(v * w * mean_of_pairs(h, a, b) for a, v in parts for b, w in parts)
        assert estimate.value == pytest.approx(wanted, abs=1e-12)


def test_a_single_stratum_is_the_plain_kid() -> None:
    rng = np.random.default_rng(8)
    groups, strata, _ = cases(("a", "no", 30), ("b", "no", 20), ("b", "yes", 20))
    real, generated = rng.normal(size=(2, 70, 2))
    plain = kid(KERNEL, real, generated, groups)[1]
    alone = standardised_kid(KERNEL, real, generated, groups, strata, {"no": 1.0, "yes": 0.0})[1]
    assert alone.value == pytest.approx(plain.value, abs=1e-13)
    np.testing.assert_allclose(alone.influence, plain.influence, atol=1e-13)
    assert alone.df == pytest.approx(plain.df)


def test_own_shares_as_weights_give_the_plain_kid_but_for_pairs_in_a_stratum() -> None:
    """Plain: pairs in proportion to n_c (n_c' - [c = c']) / (n (n - 1)); standardised: n_c n_c'."""
    rng = np.random.default_rng(9)
    groups, strata, ill = cases(("a", "no", 30), ("a", "yes", 15))
    real, generated = images(rng, ill)
    plain = kid(KERNEL, real, generated, groups)[0]
    own = standardised_kid(KERNEL, real, generated, groups, strata, shares(strata))[0]
    unit = np.arange(45)
    h = h_of_units(real, generated, unit, unit)
    parts = [ill == 0, ill == 1]
    within = sum(p.mean() * mean_of_pairs(h, p, p) for p in parts)
    assert plain.value == pytest.approx(own.value + (own.value - within) / 44, abs=1e-12)


def test_standardising_takes_the_case_mix_out_of_a_contrast() -> None:
    """A generator equally good for equal patients: plain KID blames the group with more disease."""
    rng, (groups, strata, ill) = np.random.default_rng(10), cases(*MIX)
    plain: list[list[float]] = []
    common: list[list[float]] = []
    alarms: list[tuple[bool, bool]] = []
    errors: list[list[float]] = []
    for _ in range(400):
        features = images(rng, ill)
        own = kid(KERNEL, *features, groups)[1:]
        equal = standardised_kid(KERNEL, *features, groups, strata, WEIGHTS)[1:]
        plain.append([e.value for e in own])
        common.append([e.value for e in equal])
        errors.append([e.standard_error for e in equal])
        alarms.append((difference(*own).p_value() < 0.05, difference(*equal).p_value() < 0.05))
    spread = np.std(common, axis=0)
    assert np.abs(np.mean(common, axis=0) - true_kid(0.3)).max() < 3 * spread.max() / 20
    truth = [mean_plain_kid(20), mean_plain_kid(60)]
    assert truth[1] > 5 * truth[0]
    assert (np.abs(np.mean(plain, axis=0) - truth) < 3 * np.std(plain, axis=0) / 20).all()
    ratio = np.sqrt(np.mean(np.square(errors), axis=0)) / spread
    assert (ratio > 0.95).all()  # above 1 at small n: a jackknife counts the second order twice
    assert (ratio < 1.3).all()
    blamed, cleared = np.mean(alarms, axis=0)
    assert blamed > 0.8
    assert cleared < 0.075


def test_a_thin_stratum_is_named_with_its_n_and_one_of_weight_zero_is_ignored() -> None:
    rng = np.random.default_rng(11)
    groups, strata, ill = cases(("a", "no", 30), ("a", "yes", 4), ("b", "no", 30), ("b", "yes", 30))
    features = images(rng, ill)
    thin = standardised_kid(KERNEL, *features, groups, strata, WEIGHTS)
    assert np.isfinite([e.value for e in thin]).tolist() == [True, False, True]
    assert thin[1].note == "not estimable: disease yes has 4 subjects, fewer than 5"
    healthy = standardised_kid(KERNEL, *features, groups, strata, {"no": 1.0})
    assert np.isfinite([e.value for e in healthy]).all()
    assert [e.n for e in healthy] == [60, 30, 30]


def test_shares_are_those_of_units() -> None:
    assert shares(cases(*MIX)[1]) == {"no": 0.6, "yes": 0.4}


# -- floor and refusals ----------------------------------------------------------------------


def test_real_floor_equals_the_unpaired_kid_of_its_halves() -> None:
    rng = np.random.default_rng(12)
    real, n = rng.normal(size=(50, 3)), 50
    splits = real_floor(KERNEL, real, np.arange(n), np.ones(n, dtype=bool), splits=3, seed=4)
    half = np.argsort(np.random.default_rng(4).random((3, n)), axis=1) < n // 2
    for found, first in zip(splits, half, strict=True):
        groups = [split_groups({"a": int(part.sum())}) for part in (first, ~first)]
        wanted = kid_unpaired(KERNEL, real[first], real[~first], *groups)[0]
        assert found == pytest.approx(wanted.value, abs=1e-12)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "none": ({"generated_unit": np.arange(29)}, "none for 1 of 30 subjects"),
    "range": ({"generated_unit": np.arange(31)}, "unit 30; expected 0 to 29"),
    "both": ({"generated_unit": np.arange(30), "source": np.arange(30)}, "pair row by row"),
}


@pytest.mark.parametrize("unpaired", [False, True])
def test_a_group_whose_images_are_all_one_has_a_kid_and_no_interval(unpaired: bool) -> None:
    """Rounding is no sampling error: a contrast with such a group had p = 2e-14, and no limits."""
    groups = split_groups({"a": 25, "b": 75})
    real, made = np.random.default_rng(0).normal(size=(2, 100, 8))
    real[:25], made[:25] = 1.0, 2.0
    if unpaired:
        overall, one, other = kid_unpaired(KERNEL, real, made, groups, groups)
    else:
        overall, one, other = kid(KERNEL, real, made, groups)
    assert one.value == pytest.approx(2 - 2 * np.exp(-8 / (2 * KERNEL.bandwidth**2)))
    assert np.isnan(one.interval()).all()
    assert one.note == "no interval: every pair of its subjects gives the same value"
    gap = difference(one, other)
    assert np.isnan([*gap.interval(), gap.p_value(), gap.p_equivalence(1.0)]).all()
    assert np.isfinite([*overall.interval(), *other.interval()]).all()


def test_features_that_are_no_numbers_are_refused_in_one_line() -> None:
    with pytest.raises(InputError, match=r"real features: .*expected an array of numbers"):
        kid(KERNEL, [["none", "0.1"]] * 30, np.zeros((30, 2)), split_groups({"a": 30}))


@pytest.mark.parametrize("case", REFUSED)
def test_bad_units_are_refused_in_one_line(case: str) -> None:
    change, words = REFUSED[case]
    features = np.zeros((2, 30, 2))
    with pytest.raises(InputError, match=words):
        kid(KERNEL, *features, split_groups({"a": 30}), **change)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"no": 0.5, "yes": 0.4}, "expected shares of sum 1"),
        ({"no": 1.5, "yes": -0.5}, "expected shares of sum 1"),
        ({"no": 0.5, "maybe": 0.5}, "unknown level of disease 'maybe'"),
    ],
)
def test_bad_weights_are_refused_in_one_line(weights: dict[str, float], words: str) -> None:
    groups, strata, ill = cases(*MIX)
    with pytest.raises(InputError, match=words):
        standardised_kid(KERNEL, *np.zeros((2, len(ill), 2)), groups, strata, weights)


def test_strata_and_groups_must_be_of_the_same_images() -> None:
    groups, other = split_groups({"a": 30}), cases(*MIX)[1]
    with pytest.raises(InputError, match="not of the same images"):
        standardised_kid(KERNEL, *np.zeros((2, 30, 2)), groups, other, WEIGHTS)
    with pytest.raises(InputError, match="different groups"):
        kid_unpaired(KERNEL, *np.zeros((2, 30, 2)), groups, split_groups({"b": 30}))


# -- limits on the root scale ----------------------------------------------------------------


def test_root_limits_are_squares_of_limits_of_the_root() -> None:
    value, error, df = 0.04, 0.008, 35.0
    reach = stats.t.ppf(0.975, df) * error / (2 * np.sqrt(value))
    expected = (np.sqrt(value) - reach) ** 2, (np.sqrt(value) + reach) ** 2
    assert root_limits(value, error, df) == pytest.approx(expected)
    for near in (-0.01, 0.0, 0.005):  # as low as the t-interval where 0 can't be excluded
        low, high = root_limits(near, error, df)
        assert low == pytest.approx(near - stats.t.ppf(0.975, df) * error) and high > near


def test_arms_of_a_skewed_root_solve_halls_equation() -> None:
    for skewness in (-0.6, -0.1, 0.1, 0.4, 0.9):
        for reach in (-3.0, -2.0, 0.0, 1.5, 2.5):
            t = skewed(reach, skewness)
            turned = t + skewness * (2 * t**2 + 1) / 6 + skewness**2 * t**3 / 27
            assert turned == pytest.approx(reach, abs=1e-12)
    assert skewed(2.0, 0.0) == skewed(2.0, 1e-9) == 2.0
    plain, right, left = (root_limits(0.04, 0.008, 35.0, skewness=s) for s in (0.0, 0.3, -0.3))
    assert plain[0] < right[0] < 0.04 < plain[1] < right[1]  # few large parts: more above
    assert left[0] < plain[0] and left[1] == plain[1]  # never shorter above


def rarely_wrong(rng: np.random.Generator, n: int, share: float) -> Estimate:
    """KID of ``n`` images, of which a share shows nothing of what the real ones show."""
    real, made = rng.normal(size=(2, n, 3)) / 2
    made[rng.random(n) < share] += 6.0
    return kid(KERNEL, real, made, split_groups({"a": n}))[0]


def test_a_kid_that_few_images_make_has_a_longer_upper_arm() -> None:
    rare, most = (rarely_wrong(np.random.default_rng(4), 60, share) for share in (0.15, 0.5))
    assert rare.lopsided > 0.15 > 0.05 > abs(most.lopsided)
    low, high = rare.interval()
    plain = root_limits(rare.value, rare.standard_error, rare.df)
    assert low > plain[0] and high > plain[1]


def test_runs_are_too_few_to_show_a_skewness() -> None:
    units = np.array([0.3, -0.1, -0.1, -0.1])
    runs = np.array([0.4, -0.2, -0.2])
    one = Estimate(1.0, np.concatenate([units, runs]), 4, 2.0, rooted=True, runs=3)
    assert one.lopsided == pytest.approx(np.sum(units**3) / one.standard_error**3)


@pytest.mark.slow
def test_an_interval_of_rare_faults_holds_the_truth_about_as_often_as_it_says() -> None:
    rng, audits, n, share = np.random.default_rng(5), 3000, 78, 0.25
    shift = np.full(3, 6.0)
    apart = 2 * mean_kernel(np.zeros(3), 0.5) - 2 * mean_kernel(shift, 0.5)
    truth = share**2 * apart  # right images have the law of the real ones
    below = dict.fromkeys(("plain", "skewed"), 0)
    for _ in range(audits):
        one = rarely_wrong(rng, n, share)
        below["plain"] += root_limits(one.value, one.standard_error, one.df)[1] < truth
        below["skewed"] += one.interval()[1] < truth
    assert below["plain"] / audits > 0.044, below  # where 2.5% is promised
    assert below["skewed"] / audits < 0.041, below


def two_groups(rng: np.random.Generator, small: float) -> list[Estimate]:
    """KID of 36 and of 400 subjects: shifts ``small`` and 1."""
    sizes = (36, 400)
    names = [f"s{i:03d}" for i in range(sum(sizes))]
    table = pd.DataFrame({"subject": names, "level": np.repeat(["few", "many"], sizes)})
    real, made = rng.normal(size=(2, sum(sizes), 4))
    made[:, 0] += np.repeat([small, 1.0], sizes)
    groups = group_units(table, {"level": ("few", "many")})
    return kid(Kernel(2.2), real, made, groups)[1:]


@pytest.mark.slow
def test_both_tails_are_wrong_equally_seldom_and_a_worse_small_group_is_found_oftener() -> None:
    rng, runs = np.random.default_rng(0), 800
    counts = {name: dict.fromkeys(("t", "root"), 0) for name in ("worse", "better", "power")}
    for case, small in (("null", 1.0), ("power", 1.4)):
        for _ in range(runs):
            rooted = two_groups(rng, small)
            plain = [replace(one, rooted=False) for one in rooted]
            for name, pair in (("t", plain), ("root", rooted)):
                low, high = difference(*pair).interval()
                if case == "power":
                    counts["power"][name] += low > 0
                else:
                    counts["worse"][name] += low > 0
                    counts["better"][name] += high < 0
    rate = {name: {k: v / runs for k, v in own.items()} for name, own in counts.items()}
    assert rate["worse"]["t"] < 0.01 and rate["better"]["t"] > 0.035, rate  # lopsided
    assert all(0.003 < rate[side]["root"] <= 0.035 for side in ("worse", "better")), rate
    assert rate["power"]["root"] > 1.2 * rate["power"]["t"], rate
