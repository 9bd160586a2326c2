"""Told apart, dense and covering, copied: each finds what was planted, and only that."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fairdiff_lib.audit.audit import audit, kid_metric
from fairdiff_lib.audit.estimate import Floats, group_units
from fairdiff_lib.audit.kid import Kernel
from fairdiff_lib.audit.realism import c2st_metric, clipped_scores, equal_n_rows, near_copies

LEVELS = {"race": ("Black", "White")}
RACES = np.repeat(["Black", "White"], [100, 300])
TABLE = pd.DataFrame({"subject": [f"s{i:03d}" for i in range(400)], "race": RACES})
GROUPS = group_units(TABLE, LEVELS)


def images(seed: int, shift: float = 0.0) -> tuple[Floats, Floats]:
    """Real features, and generated ones that are off for Black subjects."""
    rng = np.random.default_rng(seed)
    real, made = rng.normal(size=(2, 400, 5))
    made[:, 0] += np.where(RACES == "Black", shift, 0.0)
    return real, made


def test_the_group_that_is_off_is_told_apart_and_only_that() -> None:
    overall, black, white = c2st_metric(*images(0, 1.5))(GROUPS)
    assert black.interval()[0] > 0.6
    assert white.value < black.value
    assert overall.n == 400
    same = c2st_metric(*images(1))(GROUPS)
    assert all(abs(one.value - 0.5) < 3 * one.standard_error for one in same)


def test_what_is_always_told_apart_has_no_number() -> None:
    real, made = images(2)
    found = c2st_metric(real, made + 9)(GROUPS)
    assert all(np.isnan(one.value) and "told apart in 100%" in one.note for one in found)


@pytest.mark.slow
def test_accuracy_covers_one_half_where_there_is_nothing_to_tell() -> None:
    held = np.zeros(3)
    for seed in range(400):
        ends = np.array([one.interval() for one in c2st_metric(*images(100 + seed))(GROUPS)])
        held += (ends[:, 0] <= 0.5) & (ends[:, 1] >= 0.5)
    assert ((held / 400 >= 0.93) & (held / 400 <= 0.995)).all(), held


def test_clipped_scores_see_quality_and_variety() -> None:
    rng = np.random.default_rng(3)
    real, good = rng.normal(size=(2, 300, 3))
    whole = clipped_scores(real, good)
    assert whole[0] > 0.9 and whole[1] > 0.75
    bad = good.copy()
    bad[:150] += 20  # half of the images are none
    assert clipped_scores(real, bad)[0] == pytest.approx(whole[0] / 2, abs=0.08)
    few = np.where(np.arange(300)[:, None] < 0, good, 0.2 * good)  # all alike: close, not varied
    assert clipped_scores(real, few)[0] > 0.9 and clipped_scores(real, few)[1] < 0.5
    with_outlier = np.concatenate([real, [[40.0, 0, 0]]])
    assert (
        clipped_scores(with_outlier, good + np.array([15, 0, 0]))[0] < 0.02
    )  # its ball vouches for nobody


def test_levels_are_scored_at_equal_n() -> None:
    table = equal_n_rows(*images(4), GROUPS, LEVELS)
    values = table.set_index(["level", "metric"])["value"]
    for metric in ("clipped_density", "clipped_coverage"):
        assert values["Black", metric] == pytest.approx(values["White", metric], abs=0.1)
    ranged = table["level"] == "White"
    assert table.loc[ranged, "note"].str.contains("at 100 subjects").all()
    assert (table["low"] < table["high"]).tolist() == ranged.tolist()
    alone = table.loc[~ranged, ["low", "high"]]  # the smallest level is one set of subjects
    assert len(alone) == 2 and alone.isna().to_numpy().all()
    assert table.loc[~ranged, "note"].str.contains("all of its 100 subjects").all()


def test_copies_are_counted_named_and_refused_an_interval() -> None:
    real, made = images(5)
    clean = near_copies(made, real, GROUPS.unit)
    assert clean.twinned.mean() < 0.02
    made[:60] = made[0] + 1e-3 * np.random.default_rng(6).normal(size=(60, 5))
    copies = near_copies(made, real, GROUPS.unit)
    assert copies.twinned[:60].all() and copies.twinned[60:].mean() < 0.02
    names = [f"{k}.png" for k in range(400)]
    said = copies.caveat(names)
    assert "0.png, 1.png, 2.png, ..." in said and "the largest of 60" in said
    plain = audit(kid_metric(Kernel(2.5), real, made), GROUPS, LEVELS, metric="kid")
    found = copies.guard(plain, GROUPS)
    black, white = (found.estimates["race", level] for level in LEVELS["race"])
    assert np.isnan(black.interval()[0]) and "60% of its generated images" in black.note
    assert black.value == plain.estimates["race", "Black"].value
    assert white.interval() == plain.estimates["race", "White"].interval()
    assert np.isnan(found.contrasts["p"].iloc[0])


def test_little_variety_is_no_copying() -> None:
    real, made = images(8)
    found = near_copies(0.1 * made, real, GROUPS.unit)
    assert found.twinned.mean() < 0.02


def test_one_picture_four_hundred_times_is_one_set() -> None:
    real, made = images(7)
    one = near_copies(np.repeat(made[:1], 400, axis=0), real, GROUPS.unit)
    assert one.twinned.all() and len(np.unique(one.cluster)) == 1
