"""Frechet distance: closed forms, what the correction removes, what resamples are for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torchmetrics.image.fid import _compute_fid

from benchmarks.audit import block_jackknife, naive_frechet, naive_resample
from fairdiff_lib.audit.estimate import Floats
from fairdiff_lib.audit.estimators import multiplicities
from fairdiff_lib.audit.fid import (
    fid,
    fid_against_n,
    fid_as_released,
    fid_resamples,
    frechet_distance,
)
from fairdiff_lib.settings.errors import InputError


def pair(n: int, features: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Correlated features far from the origin, the generated ones wider and moved."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(features, features)) / features**0.5
    real, generated = rng.normal(size=(2, n, features)) @ mix
    return 7 + real, 7.1 + 1.3 * generated


@pytest.mark.parametrize(("n", "p", "features"), [(300, 200, 16), (40, 60, 90), (70, 30, 50)])
def test_the_nuclear_norm_gives_the_distance_of_the_definition(
    n: int, p: int, features: int
) -> None:
    real, generated = pair(max(n, p), features)
    wanted = naive_frechet(real[:n], generated[:p])
    assert frechet_distance(real[:n], generated[:p]) == pytest.approx(wanted, rel=1e-6)


def test_gaussians_have_their_closed_form_and_torchmetrics_agrees() -> None:
    rng = np.random.default_rng(8)
    scale = np.array([1.0, 2.0, 0.5])
    real = rng.normal(size=(40_000, 3)) * scale
    generated = rng.normal(size=(40_000, 3)) * 1.5 * scale + 1.0
    closed = 3.0 + np.sum((0.5 * scale) ** 2)
    assert frechet_distance(real, generated) == pytest.approx(closed, rel=0.02)
    for n in (50, 4000):
        sides = [torch.from_numpy(side[:n].T) for side in (real, generated)]
        released = _compute_fid(*(x for side in sides for x in (side.mean(1), side.cov())))
        found = fid_as_released(real[:n], generated[:n])
        assert found == pytest.approx(float(released), rel=1e-8)


def test_correction_equals_the_jackknife_of_whole_units() -> None:
    real, generated = pair(150, 12)
    unit = np.random.default_rng(1).integers(90, size=150)
    wanted = block_jackknife(lambda rows: naive_frechet(real[rows], generated[rows]), unit)
    assert fid(real, generated, unit) == pytest.approx(wanted, rel=1e-8)


def test_features_without_spread_do_not_stop_the_correction() -> None:
    """A dead feature and a copied one have no Cholesky factor; they add nothing, or double."""
    real, generated = pair(150, 6)
    unit = np.arange(150)
    zeros = np.zeros((150, 1))
    dead = fid(np.hstack([real, zeros]), np.hstack([generated, zeros]), unit)
    assert dead == pytest.approx(fid(real, generated, unit), rel=1e-6)
    one, other = real[:, :1], generated[:, :1]
    copied = fid(np.hstack([one, one]), np.hstack([other, other]), unit)
    assert copied[0] == pytest.approx(2 * fid(one, other, unit)[0], rel=1e-6)


def test_corrected_fid_loses_most_of_the_bias() -> None:
    """One law on both sides: the true distance is 0, the raw one grows with features / n."""
    rng, raw, corrected = np.random.default_rng(9), [], []
    for _ in range(20):
        real, generated = rng.normal(size=(2, 60, 16))
        raw.append(frechet_distance(real, generated))
        corrected.append(fid(real, generated, np.arange(60))[0])
    assert np.mean(raw) > 2
    assert abs(np.mean(corrected)) < 0.4 * np.mean(raw)


def test_fid_needs_three_subjects_per_feature() -> None:
    real = np.random.default_rng(10).normal(size=(94, 16))
    unit = np.arange(94) // 2  # 47 subjects of two images each
    assert np.isnan(fid(real, real + 1, unit)).all()
    assert np.isnan(fid_resamples(real, real + 1, unit, 5)).all()


# -- resamples -------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [10, 90])
def test_plain_resamples_equal_the_distance_of_repeated_rows(features: int) -> None:
    """From moments where features are few, from the cross-Gram matrix where they are many."""
    real, generated = pair(60, features)
    unit = np.arange(60) // 2
    found = fid_resamples(real, generated, unit, 4, seed=3, corrected=False)
    for value, counts in zip(found, multiplicities(unit, 4, seed=3), strict=True):
        rows = np.repeat(np.arange(60), counts.astype(int))
        assert value == pytest.approx(naive_frechet(real[rows], generated[rows]), rel=1e-6)


def test_each_resample_is_corrected_by_its_own_jackknife() -> None:
    """Copies of a unit never stand in two blocks, where they would vouch for each other."""
    real, generated = pair(80, 5)
    unit = np.arange(80)
    found = fid_resamples(real, generated, unit, 3, seed=4)
    for value, counts in zip(found, multiplicities(unit, 3, seed=4), strict=True):
        wanted = naive_resample(real, generated, counts, corrected=True)
        assert value == pytest.approx(wanted, rel=1e-8)


def spread_over(draws: int, statistic: Callable[[Floats, Floats], float]) -> float:
    """Standard deviation of a statistic over fresh samples of 150 images, 6 features."""
    rng = np.random.default_rng(11)
    samples = rng.normal(size=(draws, 2, 150, 6)) * np.array([1.0, 1.4])[:, None, None]
    return float(np.std([statistic(*sample) for sample in samples]))


def test_corrected_resamples_have_the_place_and_spread_that_they_stand_for() -> None:
    """Plain ones do not: their copies add the bias of the plain FID once more."""
    unit = np.arange(150)
    fresh = spread_over(200, lambda real, generated: fid(real, generated, unit)[0])
    rng, ratios, places = np.random.default_rng(12), [], []
    for _ in range(6):
        real, generated = rng.normal(size=(150, 6)), 1.4 * rng.normal(size=(150, 6))
        plain, corrected = frechet_distance(real, generated), fid(real, generated, unit)[0]
        drawn = fid_resamples(real, generated, unit, 100)
        counted_twice = fid_resamples(real, generated, unit, 100, corrected=False)
        ratios.append(drawn.std() / fresh)
        means = np.array([drawn.mean(), counted_twice.mean()])
        places.append((means - corrected) / (plain - corrected))  # 0: corrected, 1: plain
    assert 0.85 < np.mean(ratios) < 1.25
    assert abs(np.mean(places, axis=0)[0]) < 0.2
    assert np.mean(places, axis=0)[1] == pytest.approx(2, abs=0.3)


# -- against n -------------------------------------------------------------------------------


def test_fid_against_n_falls_to_the_value_at_n_without_end() -> None:
    """One law: the plain FID of 8 features falls as 1/n."""
    real, generated = np.random.default_rng(13).normal(size=(2, 2000, 8))
    found = fid_against_n(real, generated, (100, 200, 400, 800), seed=1, draws=10)
    means = found.groupby("n")["value"].mean()
    assert list(found.columns) == ["n", "draw", "value"]
    assert means.is_monotonic_decreasing
    assert means[100] / means[800] == pytest.approx(8, rel=0.25)


def test_fid_against_n_refuses_sizes_that_there_are_not() -> None:
    real = np.zeros((20, 2))
    with pytest.raises(InputError, match="size 21; expected 2 to 20"):
        fid_against_n(real, real, (10, 21))
