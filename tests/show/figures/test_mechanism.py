"""Figures and sentences of the mechanism: they say what the numbers say, both ways."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from matplotlib.text import Text

from fairdiff_lib.show import words_studies as words
from fairdiff_lib.show.figures import mechanism as drawn
from fairdiff_lib.studies.mechanism import EFFECT_COLUMNS, Mechanism
from fairdiff_lib.studies.mechanism.history import COLUMNS, SLICE_COLUMNS

SIMULATED = "fairgenmed_simulated"
PLACES = [("overall", "all"), ("race", "Asian"), ("race", "Black")]
nan = math.nan


def table(p: float = 0.5, timesteps: float = 0.8, arm: str = "fairdiffusion") -> pd.DataFrame:
    rows: list[tuple[object, ...]] = [
        (arm, 0, "surrogate_r2", "", "", 0.01, nan, nan),
        (arm, 0, "surrogate_r2_shuffled", "", "", 0.02, -0.1, 0.1),
        (arm, 0, "surrogate_p", "", "", p, nan, nan),
        (arm, 0, "negative_weights", "", "", 0.11, 0.1, 0.12),
        (arm, 0, "negative_weights_theory", "", "", 0.12, nan, nan),
        (arm, 0, "clipped_spans", "", "", 0.25, nan, nan),
        (arm, 0, "clip_factor", "", "", 0.98, 0.97, 0.99),
        (arm, 0, "drift_ratio", "", "", 0.7, 0.6, 0.8),
        (arm, 0, "perturbed_cosine", "", "", 0.8, 0.7, 0.9),
        (arm, 0, "perturbed_norm", "", "", 1.2, 1.1, 1.3),
        ("base", 0, "gap_mean", "", "", 0.2, 0.1, 0.3),
        ("base", 0, "gap_pooled", "", "", 0.02, nan, nan),
        ("base", 0, "gap_from_timesteps", "", "", 0.18, 0.1, 0.3),
        ("base", 0, "explained_timesteps", "", "", timesteps, timesteps - 0.05, timesteps + 0.05),
        ("base", 0, "explained_groups", "", "", 0.3, 0.1, 0.4),
        ("base", 0, "explained_both", "", "", 0.85, 0.7, 0.9),
        ("base", 0, "explained_absent", "", "", nan, nan, nan),
    ]
    for place, value in zip(PLACES[1:], (0.7, 1.02), strict=True):
        rows.append((arm, 0, "weight", *place, value, value - 0.1, value + 0.1))
    for place in PLACES:
        for quantity in ("plain_level_cosine", "perturbed_level_cosine"):
            rows.append((arm, 0, quantity, *place, 0.4, 0.3, 0.5))
    return pd.DataFrame([(SIMULATED, *row, "") for row in rows], columns=list(COLUMNS))


def slices() -> pd.DataFrame:
    rows = [("race", level, s, -0.1, -0.2, 0.0, 0.5)
            for level in ("Asian", "Black") for s in (0.0, 0.5, 1.0)]  # fmt: skip
    return pd.DataFrame(rows, columns=list(SLICE_COLUMNS))


def cosines(across: float = 0.2) -> pd.DataFrame:
    rows = [(*a, *b, 0.6 if a == b else across) for a in PLACES for b in PLACES]
    columns = ["attribute", "level", "other_attribute", "other_level", "value"]
    return pd.DataFrame(rows, columns=columns)


def effects(value: float, reach: float = 0.01) -> pd.DataFrame:
    rows = [(SIMULATED, kind, outcome, *place, 16, value, value - reach, value + reach, "")
            for kind in ("noise", "mean") for outcome in ("own_loss", "overall_loss", "gap")
            for place in PLACES[1:]]  # fmt: skip
    return pd.DataFrame(rows, columns=list(EFFECT_COLUMNS))


def texts(fig: object) -> str:
    found = fig.findobj(Text)  # type: ignore[attr-defined]
    return " ".join(" ".join(text.get_text() for text in found).split())


@pytest.mark.parametrize("arm", ["fairdiffusion", "beta 1"])
def test_the_page_names_what_is_simulated_and_takes_arms(arm: str) -> None:
    said = texts(drawn.fig_mechanism(table(arm=arm)))
    assert "simulated" in said
    assert {"fairdiffusion": "FairDiffusion", "beta 1": "beta 1"}[arm] in said


def test_the_page_without_surrogate_says_so() -> None:
    bare = table()[lambda t: t["method"] == "base"]
    assert "none measured" in texts(drawn.fig_mechanism(bare))


def test_runs_of_several_arms_name_their_seeds_once() -> None:
    one = pd.concat([table().assign(seed=seed) for seed in (0, 1)])
    page = drawn.fig_mechanism(one[one["method"] != "base"])
    assert [x.get_text() for x in page.axes[0].get_yticklabels()] == ["seed 0", "seed 1"]
    arms = pd.concat([one, one[one["method"] == "fairdiffusion"].assign(method="beta 1")])
    page = drawn.fig_mechanism(arms)
    for ax in (page.axes[0], page.axes[2]):
        assert [x.get_text() for x in ax.get_yticklabels()] == [""] * 4
        assert ax.get_ylabel() == "of each arm: seeds 0, 1"
    uneven = arms[(arms["method"] != "beta 1") | (arms["seed"] == 0)]
    assert drawn.fig_mechanism(uneven).axes[0].get_ylabel() == "of each arm: a row per seed"


def test_a_quantity_without_a_value_has_no_row() -> None:
    panel = drawn.fig_mechanism(table()).axes[1]
    rows = [x.get_text() for x in panel.get_yticklabels()]
    assert rows == ["draw of timesteps", "group effects", "both"]


def test_a_window_has_a_panel_per_attribute_and_a_line_per_level() -> None:
    page = drawn.fig_surrogate(slices())
    assert [len(ax.collections) for ax in page.axes] == [2]
    assert {"Asian", "Black"} <= set(texts(page).split())


def test_negative_weights_are_marked_and_the_mean_stays_one() -> None:
    weights = pd.DataFrame({"sample": ["a", "b", "c"], "weight": [1.5, -0.5, 0.2]})
    page = drawn.fig_weights(weights, scales=(1.0,))
    drawn_points = {line.get_label(): len(line.get_xdata()) for line in page.axes[0].lines}
    assert drawn_points["negative"] == 1 and drawn_points["positive"] == 2
    # 1 / sqrt(3) standard deviations above 0: Phi(-0.577)
    assert "noise scale 1: 28% negative" in texts(page)


def test_effects_on_a_page() -> None:
    said = texts(drawn.fig_dose(effects(-0.1)))
    assert "simulated" in said and "Reweighting by noise" in said and "16 cells" in said


def test_the_surrogates_sentence_follows_p() -> None:
    assert "does not help to predict" in words.about_surrogate(table(p=0.5))
    assert "helps to predict the score in 1 of 1 run" in words.about_surrogate(table(p=0.04))
    assert "No run has a surrogate" in words.about_surrogate(table()[:0])


def test_one_line_says_in_how_many_runs_sigma_predicts_the_score() -> None:
    said = words.about_foresight(table(p=0.04))
    assert "hardly helps" in said and "in 1 of 1 run." in said and "make that 0.1" in said
    assert "No run has a surrogate" in words.about_foresight(table()[:0])


def test_the_noise_is_told_beside_noise_of_the_same_size() -> None:
    rows = [("a", "drift_ratio", 0.8), ("b", "drift_ratio", 0.9), ("a", "clipped_spans", 0.5),
            ("none", "clipped_spans", 0.1)]  # fmt: skip
    own = pd.DataFrame(rows, columns=["method", "quantity", "value"])
    said = words.about_noise(own, "a", "b")
    assert "noise shortens the updates, and so does" in said and "by 20%, and by 10%" in said
    assert "in 50% of the logged spans; without noise in 10%" in said
    longer = own.assign(value=own["value"].where(own["method"] != "b", 1.1))
    assert "so does" not in words.about_noise(longer, "a", "b")


def test_the_gaps_sentence_names_the_share_that_is_told_to_be_larger() -> None:
    assert "follows the draw of timesteps more" in words.about_gap(table(timesteps=0.8))
    assert "follows the groups more" in words.about_gap(table(timesteps=0.02))
    assert "Neither the draw of timesteps nor the groups" in words.about_gap(table(timesteps=0.2))
    assert "Every batch had patients of every group" in words.about_gap(table())


def test_weights_and_steps_in_words() -> None:
    said = words.about_weights(table())
    assert "Asian's, 0.7" in said and "told from 1 in 1 of 2 cases" in said
    assert "11.0% of weights are negative; the Gaussian formula gives 12.0%" in said
    assert "30.0% shorter than the baseline's" in words.about_steps(table())
    assert "clipped in 25% of the logged spans" in words.about_steps(table())


def test_levels_pull_apart_only_below_their_own_agreement() -> None:
    assert words.pulling_apart(cosines(0.2)) == (1, 1)
    assert words.pulling_apart(cosines(0.6)) == (0, 1)
    assert "cosine of 0.80" in words.about_gradients(table(), cosines())


def test_the_doses_sentence_counts_intervals() -> None:
    assert "falls for 2 and rises for 0 of 2" in words.about_dose(effects(-0.1))
    still = words.about_dose(effects(0.0))
    assert "falls for 0 and rises for 0" in still and "the sigma of 0 of 2 groups." in still
    none = effects(0.1).assign(low=nan, high=nan)
    assert "too few cells" in words.about_dose(none)


def test_scalars_name_the_run() -> None:
    runs = pd.DataFrame([{"method": "fairdiffusion", "seed": 0, "proposals": 2,
                          "optimiser_share": 0.1, "final_loss": 0.3}])  # fmt: skip
    found = Mechanism(runs, table(), table(), cosines()).scalars()
    assert found["fairdiffusion_seed0_surrogate_p"] == 0.5
    assert found["fairdiffusion_seed0_proposals"] == 2
    assert found["explained_timesteps"] == 0.8
