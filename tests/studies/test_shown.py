"""What an image shows against what was asked, and whether its group can be read: planted truths."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from fairdiff_lib.audit.classifiers import Scored
from fairdiff_lib.audit.estimate import Estimate, Groups, group_units
from fairdiff_lib.datasets import dataset_of
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.studies import harm as shown

SEX = {"sex": ("Female", "Male")}
LEVELS = ("normal", "borderline", "abnormal")
N = 240
RULER = dataset_of("fairgenmed_simulated").ruler
assert RULER is not None


def groups(n: int = N) -> Groups:
    """Half female, in turns."""
    sex = np.array(SEX["sex"])[np.arange(n) % 2]
    return group_units(pd.DataFrame({"subject": np.arange(n), "sex": sex}), SEX)


def read(strength: np.ndarray, seed: int) -> Scored:
    """Scores of two levels that follow the prompt as strongly as is said of every image."""
    rng = np.random.default_rng(seed)
    asked = (np.arange(N) // 2) % 2
    score = 1 / (1 + np.exp(-(strength * (2 * asked - 1) + rng.normal(size=N))))
    scores = np.column_stack([1 - score, score])
    return Scored(asked, (score >= 0.5).astype(np.int64), scores, groups())


def test_a_prompt_that_is_lost_for_one_group_is_found_by_the_differences_of_differences() -> None:
    male = np.arange(N) % 2 == 1
    real = shown.reading_audits(read(np.full(N, 2.0), 0), SEX)
    made = shown.reading_audits(read(np.where(male, 0.0, 2.0), 1), SEX)
    assert set(real) == {"agreement", "auc"}
    for metric in ("agreement", "auc"):
        lost = shown.change(made[metric], real[metric])
        rows = lost.by_group.set_index("level")
        assert lost.metric == f"{metric}_change"
        assert rows.loc["Male", "high"] < -0.2
        assert rows.loc["Female", "low"] < 0 < rows.loc["Female", "high"]
        contrast = lost.contrasts.iloc[0]
        assert contrast["p_adjusted"] < 0.001 and contrast["role"] == "exploratory"
    assert made["auc"].estimates["sex", "Male"].value == pytest.approx(0.5, abs=0.15)


def test_the_same_images_have_lost_nothing() -> None:
    one = shown.reading_audits(read(np.full(N, 1.0), 0), SEX)["auc"]
    assert all(estimate.value == 0 for estimate in shown.change(one, one).estimates.values())


def test_all_equal_scores_agree_by_chance_alone() -> None:
    one = read(np.full(N, 1.0), 0)
    equal = Scored(one.truth, one.predicted * 0, np.full((N, 2), 0.5), one.groups)
    found = shown.reading_audits(equal, SEX)
    assert found["auc"].overall.value == 0.5
    assert found["agreement"].overall.value == 0.5


# -- the ruler -------------------------------------------------------------------------------


def test_a_ruler_that_is_worse_for_one_group_says_so() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.25, 0.88, N)
    male = np.arange(N) % 2 == 1
    measured = truth + np.where(male, 0.1 + 0.05 * rng.normal(size=N), 0.01 * rng.normal(size=N))
    measured[[1, 3, 5]] = np.nan
    found = shown.ruler_audits(measured, truth, groups(), SEX)
    bias = found["ruler_bias"].by_group.set_index("level")
    assert bias.loc["Male", "low"] > 0.08 > abs(bias.loc["Female", "value"])
    r2 = found["ruler_r2"].by_group.set_index("level")
    assert r2.loc["Female", "low"] > 0.98 > r2.loc["Male", "high"]
    assert found["ruler_bias"].contrasts["p"].iloc[0] < 1e-6
    assert found["ruler_lost"].estimates["sex", "Male"].value == pytest.approx(3 / 120)


def test_measured_ratios_agree_with_the_prompt_as_often_as_was_planted() -> None:
    low, high = RULER.cuts
    assert 0.42 < low < 0.50 and 0.60 < high < 0.68  # between the simulator's ranges
    asked = np.arange(N) % 3
    measured = np.array([0.3, 0.55, 0.8])[asked]
    measured[:24] = 0.55  # asked for anything, shows borderline
    measured[24:36] = np.nan
    found = shown.measured_audits(RULER, measured, asked, groups(), SEX)
    wrong = np.sum(asked[:24] != 1) + 12
    assert found["cup_disc_agreement"].overall.value == pytest.approx(1 - wrong / N)
    assert found["cup_disc_lost"].overall.value == pytest.approx(12 / N)
    assert 0.8 < found["cup_disc_auc"].overall.value < 1
    assert found["cup_disc_auc"].overall.interval()[1] <= 1.05
    assert found["cup_disc_ratio"].overall.value == pytest.approx(np.nanmean(measured))


def test_levels_and_cuts_that_do_not_fit_are_refused() -> None:
    measured = np.full(N, 0.5)
    with pytest.raises(InputError, match="prompted levels 0 to 2; expected 0 to 1"):
        one = dataclasses.replace(RULER, cuts=(0.5,))
        shown.measured_audits(one, measured, np.arange(N) % 3, groups(), SEX)
    with pytest.raises(InputError, match="expected them to rise"):
        falling = dataclasses.replace(RULER, cuts=(0.6, 0.5))
        shown.measured_audits(falling, measured, np.arange(N) % 3, groups(), SEX)


def test_nothing_measured_is_nan_with_its_reason() -> None:
    found = shown.measured_audits(RULER, np.full(N, np.nan), np.arange(N) % 3, groups(), SEX)
    assert np.isnan(found["cup_disc_ratio"].overall.value)
    assert "not estimable" in found["cup_disc_ratio"].overall.note
    assert found["cup_disc_agreement"].overall.value == 0


# -- probe -----------------------------------------------------------------------------------

RACE = ("Asian", "Black", "White")


def features(strength: float, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Six features of which one carries the level."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % 3
    x = rng.normal(size=(n, 6))
    x[:, 2] += strength * (codes == 1)
    return x, codes.astype(np.int64)


def probed(learned: float, tested: float) -> dict[tuple[str, str], Estimate]:
    train, own = features(learned, 600, 0)
    test, asked = features(tested, 300, 1)
    scores = shown.probe_scores(train, own, test, "race", RACE)
    assert np.allclose(scores.sum(axis=1), 1)
    return shown.probe_estimates(scores, asked, np.arange(300), "race", RACE)


def test_a_probe_reads_what_is_there_and_nothing_else() -> None:
    found = probed(2.0, 2.0)
    assert found["race", "Black"].interval()[0] > 0.85
    assert found["race", "all"].value == pytest.approx(
        np.mean([found["race", level].value for level in RACE])
    )
    low, high = probed(0.0, 0.0)["race", "Black"].interval()
    assert low < 0.5 < high


def test_signs_that_images_exaggerate_are_read_better_and_the_change_is_paired() -> None:
    rows = shown.probe_rows(probed(2.0, 4.0), probed(2.0, 1.0)).set_index(["level", "metric"])
    change = rows.loc[("Black", "probe_auc_change")]
    assert change["low"] > 0.05
    assert np.isfinite(change["high"])


def test_two_levels_have_one_row() -> None:
    train, own = features(2.0, 300, 0)
    codes = (own == 1).astype(np.int64)
    scores = shown.probe_scores(train, codes, train, "sex", SEX["sex"])
    assert list(shown.probe_estimates(scores, codes, np.arange(300), "sex", SEX["sex"])) == [
        ("sex", "all")
    ]


def test_constant_features_read_nothing() -> None:
    train, own = np.ones((60, 3)), np.arange(60) % 2
    scores = shown.probe_scores(train, own, train, "sex", SEX["sex"])
    found = shown.probe_estimates(scores, own, np.arange(60), "sex", SEX["sex"])
    assert found["sex", "all"].value == 0.5


def test_bad_input_to_a_probe_is_named() -> None:
    train, own = features(1.0, 60, 0)
    with pytest.raises(InputError, match="probe of race: no training image of White"):
        shown.probe_scores(train, np.minimum(own, 1), train, "race", RACE)
    with pytest.raises(InputError, match="probe of race: 5 features of test images; expected 6"):
        shown.probe_scores(train, own, train[:, :5], "race", RACE)
    with pytest.raises(InputError, match="features of test images: row 1 has a value"):
        bad = train.copy()
        bad[1, 0] = np.nan
        shown.probe_scores(train, own, bad, "race", RACE)
    with pytest.raises(InputError, match=r"features of training images: shape \[60, 6\]"):
        shown.probe_scores(train, own[:50], train, "race", RACE)
