"""The rule of T14 on tables whose answer is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fairdiff_lib.show.words import about_planted, about_quotes, verdict_matrix
from fairdiff_lib.sim.chest import ChestPopulation
from fairdiff_lib.sim.fundus import FundusPopulation
from fairdiff_lib.studies.verdict.claims import (
    CLAIMS,
    CONTRADICTED,
    INCONCLUSIVE,
    NOT_TESTABLE,
    SUPPORTED,
    Change,
    Evidence,
    Finding,
    holm,
    outcome,
)
from fairdiff_lib.studies.verdict.planted import planted, planted_table
from fairdiff_lib.studies.verdict.protocol import Declared, Protocol
from fairdiff_lib.studies.verdict.table import cite, quote, verdicts

LEVELS = {"overall": ("all",), "sex": ("Female", "Male")}
RNG = np.random.default_rng(0)
RULE = Protocol(
    dataset="d",
    condition="malignant",
    contrasts=(Declared("sex", "Male", "Female", 200, 300, "primary"),),
)
Value = Callable[[str, int, str], float]  # method, seed, level


def quality(value: Value, seeds: int) -> pd.DataFrame:
    """KID by level and seed, and its squared difference between the sexes (known exactly)."""
    runs = [(method, seed) for method in ("none", "fairdiffusion") for seed in range(seeds)]
    rows = []
    for method, seed in runs:
        own = {name: value(method, seed, name) for name in ("all", "Female", "Male")}
        cells = [("overall", "all", "kid", own["all"])]
        cells += [("sex", name, "kid", own[name]) for name in ("Female", "Male")]
        cells += [("sex", "all", "kid_disparity", (own["Male"] - own["Female"]) ** 2)]
        rows += [
            {"dataset": "d", "method": method, "seeds": str(seed), "attribute": attribute,
             "level": level, "metric": metric, "features": features, "n": 200,
             "value": number if features == "lite0" else 9.0}
            for attribute, level, metric, number in cells
            for features in ("lite0", "random")  # the second space must not count
        ]  # fmt: skip
    return pd.DataFrame(rows)


def downstream(better: float, seeds: int) -> pd.DataFrame:
    rows = [
        {"source": source, "seeds": str(seed), "condition": "malignant", "attribute": attribute,
         "level": "all", "metric": metric, "n": 200,
         "value": 0.7 + better * (source == "fairdiffusion") + 0.001 * RNG.normal()}
        for source in ("real", "none", "fairdiffusion")
        for seed in range(seeds)
        for metric, attribute in (("auc", "overall"), ("es_auc", "sex"), ("es_auc", "age"))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def contrasts(value: float, reach: float, p: float, p_equivalence: float) -> pd.DataFrame:
    """The baseline's mean over seeds is declared; everything else is exploratory."""
    rows = [
        {"method": method, "seeds": seeds, "metric": "kid", "features": "lite0",
         "attribute": "sex", "level": "Male", "reference": "Female", "n": 200,
         "n_reference": 300, "value": value,
         "low": value - reach, "high": value + reach, "p_adjusted": p if declared else 0.0,
         "p_equivalence": p_equivalence if declared else 0.0, "smallest_effect": 0.022,
         "mde": 1.4 * reach, "mde_ratio": 1 + 14 * reach,
         "role": "primary" if declared else "exploratory"}
        for method in ("none", "fairdiffusion")
        for seeds in ("0", "0,1")
        for declared in [method == "none" and seeds == "0,1"]
    ]  # fmt: skip
    return pd.DataFrame(rows)


def base(method: str, seed: int, level: str) -> float:
    """The method lowers every KID, and the spread between the levels."""
    gap = {"all": 0.01, "Female": 0.0, "Male": 0.02 + 0.001 * (seed % 3)}[level]
    own = 1.0 if method == "none" else 0.5
    return own * (0.10 + gap) + 0.001 * seed


def table(
    *,
    dataset: str = "ham10000",
    value: Value = base,
    seeds: int = 6,
    better: float = 0.05,
    gaps: pd.DataFrame | None = None,
    failed: tuple[str, ...] = (),
    before: bool = True,
    study: str = "main",
) -> pd.DataFrame:
    evidence = Evidence(
        dataset,
        ["sex"],
        quality(value, seeds),
        contrasts(0.05, 0.01, 0.001, 0.99) if gaps is None else gaps,
        downstream(better, seeds),
        failed,
        before,
        "a small model",
        study,
    )
    return verdicts(evidence, RULE)


def judge(**options: Any) -> dict[str, str]:
    found = table(**options)
    return dict(zip(found["claim"], found["verdict"], strict=True))


@pytest.mark.parametrize(
    ("finding", "p", "failed", "wanted"),
    [
        (Finding(0.01, SUPPORTED, ""), 0.04, False, SUPPORTED),
        (Finding(0.01, CONTRADICTED, ""), 0.04, False, CONTRADICTED),
        (Finding(0.01, SUPPORTED, ""), 0.06, False, INCONCLUSIVE),
        (Finding(0.01, "", "", equivalent=True), 0.04, False, CONTRADICTED),
        (Finding(0.01, "", ""), 0.04, False, INCONCLUSIVE),
        (Finding(0.01, SUPPORTED, ""), 0.04, True, INCONCLUSIVE),
        (Finding(np.nan, SUPPORTED, ""), np.nan, False, INCONCLUSIVE),
        (Finding(np.nan, "", "", testable=False), np.nan, True, NOT_TESTABLE),
    ],
)
def test_the_rule(finding: Finding, p: float, failed: bool, wanted: str) -> None:
    assert outcome(finding, p, 0.95, failed) == wanted


def test_clear_improvement_with_enough_seeds_is_supported() -> None:
    assert judge() == dict.fromkeys(("C1", "C2", "C3", "C4"), SUPPORTED)


def test_one_seed_compares_no_methods() -> None:
    found = judge(seeds=1)
    assert found["C1"] == SUPPORTED  # a finding about one checkpoint's levels
    assert found["C2"] == found["C3"] == found["C4"] == INCONCLUSIVE


def test_simulated_data_do_not_test_what_was_planted() -> None:
    found = judge(dataset="fairgenmed_simulated")
    assert found["C1"] == found["C4"] == NOT_TESTABLE
    assert found["C2"] == SUPPORTED


def test_clear_harm_is_contradicted() -> None:
    swap = {"none": "fairdiffusion", "fairdiffusion": "none"}
    found = judge(value=lambda m, s, lv: base(swap[m], s, lv), better=-0.05)
    assert found["C2"] == found["C3"] == found["C4"] == CONTRADICTED


def test_levelling_down_is_not_an_improvement() -> None:
    """Equal levels, because the better one became worse."""

    def down(method: str, seed: int, level: str) -> float:
        own = base("none", seed, level)
        return own if method == "none" else base("none", seed, "Male")

    assert judge(value=down)["C2"] == INCONCLUSIVE
    reason = table(value=down).set_index("claim").loc["C2", "reason"]
    assert "worse by over 10%: Female" in reason and "Male" not in reason


def test_a_level_that_may_be_worse_for_all_one_knows_blocks_the_claim() -> None:
    """On average no level is worse, but Female's change swings by 60% from seed to seed."""

    def shaky(method: str, seed: int, level: str) -> float:
        swing = 0.06 * (-1) ** seed if method != "none" else 0.0
        return base(method, seed, level) + (swing + 0.05) * (method != "none")

    assert "Female" in table(value=shaky).set_index("claim").loc["C2", "reason"]
    assert judge(value=shaky)["C2"] == INCONCLUSIVE


def test_noise_decides_nothing() -> None:
    rng = np.random.default_rng(1)
    assert judge(value=lambda m, s, lv: 0.1 + 0.02 * rng.normal())["C2"] == INCONCLUSIVE
    assert judge(better=0.0)["C3"] == INCONCLUSIVE


@pytest.mark.parametrize(
    ("value", "reach", "p", "p_equivalence", "wanted"),
    [
        (0.05, 0.01, 0.001, 0.99, SUPPORTED),
        (0.005, 0.001, 0.001, 0.001, CONTRADICTED),  # significant, and surely too small to matter
        (0.002, 0.003, 0.6, 0.001, CONTRADICTED),  # surely smaller than what matters
        (0.01, 0.05, 0.6, 0.3, INCONCLUSIVE),  # nothing seen, nothing ruled out
        (0.05, 0.04, 0.03, 0.9, INCONCLUSIVE),  # alone it would do; not among four claims
    ],
)
def test_disparity_needs_size_and_certainty(
    value: float, reach: float, p: float, p_equivalence: float, wanted: str
) -> None:
    gaps = contrasts(value, reach, p, p_equivalence)
    assert judge(gaps=gaps, better=0.0)["C1"] == wanted


def test_the_claims_of_a_dataset_are_one_family() -> None:
    found = table().set_index("claim")
    np.testing.assert_allclose(found["p_holm"], holm(found["p"]))
    assert (found["p_holm"] >= found["p"]).all() and (found["p_holm"] <= 4 * found["p"]).all()
    assert found.loc["C4", "p"] == max(found.loc["C2", "p"], found.loc["C3", "p"])
    few = table(seeds=3).set_index("claim")  # C1 is then the only claim with a test
    assert few.loc["C1", "p_holm"] == few.loc["C1", "p"]
    assert few.loc[["C2", "C3", "C4"], "p_holm"].isna().all()


def test_no_difference_says_what_it_could_have_missed() -> None:
    reason = table(gaps=contrasts(0.01, 0.05, 0.6, 0.3)).set_index("claim").loc["C1", "reason"]
    assert "smallest effect of interest 0.022" in reason
    assert "could have been missed up to 0.07 (ratio 1.7)" in reason


def test_a_protocol_written_afterwards_is_said() -> None:
    assert table()["reason"].str.contains("after test images").sum() == 0
    late = table(before=False).set_index("claim")["reason"]
    assert late.str.contains("written after test images existed").all()


def test_a_failed_gate_makes_findings_inconclusive() -> None:
    found = judge(failed=("gate vae failed",))
    assert found["C1"] == found["C2"] == found["C3"] == found["C4"] == INCONCLUSIVE


NUMBERS = ["value", "low", "high", "smallest_effect", "mde", "n", "seeds", "p", "p_holm"]


def test_numbers_stand_in_columns_of_their_own() -> None:
    found = table().set_index("claim")
    gap = found.loc["C1"]
    assert [gap[name] for name in NUMBERS[:7]] == pytest.approx(
        [0.05, 0.04, 0.06, 0.022, 0.014, 500, 2]
    )
    assert gap["endpoint"] == "KID of Stable Diffusion's images for sex Male minus that for Female"
    change = found.loc["C2"]
    assert change["low"] < change["value"] < change["high"] < 0 < change["mde"]
    overall = np.mean([base("none", seed, "all") for seed in range(6)])
    assert change["smallest_effect"] == pytest.approx((0.2 * overall) ** 2)
    assert (change["unit"], change["seeds"], change["n"]) == ("squared KID", 6, 200)
    gain = found.loc["C3"]
    assert gain["value"] == pytest.approx(0.05, abs=0.005)  # above 0 is better, as AUC is
    assert np.isnan(gain["smallest_effect"])  # none was declared
    weaker = max(("C2", "C3"), key=lambda claim: found.loc[claim, "p"])
    assert found.loc["C4", "endpoint"] == found.loc[weaker, "endpoint"]


def test_the_detectable_change_is_found_with_eighty_percent_power() -> None:
    """Redraw the endpoint with a true change of just the mde of its spread."""
    rng, seeds, spread = np.random.default_rng(3), 8, 0.3
    error = spread / seeds**0.5
    reach = stats.t.ppf(0.975, seeds - 1) + stats.t.ppf(0.8, seeds - 1)
    drawn = rng.normal(reach * error, spread, (4000, seeds))
    found = [Change.of(values, 0.95) for values in drawn]
    assert np.mean([own.p < 0.05 for own in found]) == pytest.approx(0.8, abs=0.03)
    assert np.mean([own.detectable for own in found]) == pytest.approx(reach * error, rel=0.05)


def test_rows_that_cannot_be_tested_have_no_number() -> None:
    found = table(dataset="fairgenmed_simulated").set_index("claim")
    assert found.loc[["C1", "C4"], NUMBERS].isna().all(axis=None)
    assert found.loc["C2", NUMBERS].notna().all()


def test_one_seed_has_an_estimate_and_nothing_more() -> None:
    row = table(seeds=1).set_index("claim").loc["C2"]
    assert (row["seeds"], row["n"]) == (1, 200) and row["value"] < 0
    assert row[["low", "high", "mde", "p", "p_holm"]].isna().all()
    assert "one training seed" in row["quote"] and "at least 5 seeds" in row["quote"]


def test_a_quote_stands_by_itself() -> None:
    late = table(dataset="fairgenmed_simulated", before=False, failed=("gate vae failed (x)",))
    quotes = dict(zip(late["claim"], late["quote"], strict=True))
    for claim in ("C2", "C3"):
        row = late.set_index("claim").loc[claim]
        for words in ("On simulated FairGenMed", "a small model", "FairDiffusion",
                      f"{row['value']:+.2g} (95% interval {row['low']:+.2g} to {row['high']:+.2g})",
                      "200 simulated test subjects, 6 paired training seeds", "inconclusive",
                      "gate vae failed", "written after test images", "not of patients",
                      ):  # fmt: skip
            assert words in quotes[claim], (words, quotes[claim])
    assert "not testable on simulated FairGenMed" in quotes["C1"]
    real = table().set_index("claim")
    assert "mean of 2 training seeds" in real.loc["C1", "quote"]
    assert "simulated" not in " ".join(real["quote"])
    for text in [*late["quote"], *real["quote"]]:
        assert text.endswith(".") and ". " not in text and "\n" not in text


def test_c1_rests_on_one_contrast_that_is_clear_and_large() -> None:
    """A clear but small contrast lends its p to no other; a large one is shown with its own."""
    small, large = contrasts(0.01, 0.001, 1e-4, 0.9), contrasts(0.06, 0.05, 0.06, 0.9)
    rows = pd.concat([small, large.assign(attribute="age", level="old")], ignore_index=True)
    row = table(gaps=rows).set_index("claim").loc["C1"]
    assert (row["value"], row["p"]) == (0.06, 0.06)
    assert "age old" in row["endpoint"] and row["verdict"] == INCONCLUSIVE
    assert table(gaps=small).set_index("claim").loc["C1", "p"] == 1e-4
    assert judge(gaps=contrasts(0.06, 0.01, 1e-4, 0.9))["C1"] == SUPPORTED


def test_limits_stand_in_every_row() -> None:
    assert table()["limits"].str.contains("neither race nor skin tone").all()
    simulated = table(dataset="ham10000_simulated")["limits"]
    assert simulated.str.contains("never about patients").all()
    assert simulated.str.contains("neither race nor skin tone").all()


def test_c2_is_cited_from_the_study_with_more_seeds() -> None:
    def cited(main: int, ablation: int) -> str:
        both = table(seeds=ablation, study="ablation")
        other = both[both["claim"] == "C2"].assign(value=lambda rows: rows["value"] + 0.001)
        found = cite(table(seeds=main), other)
        assert list(found["claim"]) == ["C1", "C2", "C2", "C3", "C4"]  # both are shown
        own = found[found["cited"]]
        assert list(own["claim"]) == list(CLAIMS)
        matrix = verdict_matrix(found)
        assert matrix.loc[1, "HAM10000"] == own.iloc[1]["verdict"]
        assert about_quotes(found).count("**C2") == 1
        return str(own.iloc[1]["study"])

    assert cited(1, 8) == "ablation"
    assert cited(5, 5) == cited(6, 5) == "main"
    alone = table()
    assert cite(alone, alone.head(0))["cited"].all()


def test_the_same_runs_are_shown_once() -> None:
    main, again = table(before=False), table(study="ablation")
    found = cite(main, again[again["claim"] == "C2"]).set_index("claim")
    assert list(found.index) == list(CLAIMS) and set(found["study"]) == {"main"}
    assert "the ablation study has the same runs" in found.loc["C2", "reason"]
    assert "exploratory" in found.loc["C2", "quote"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"low": -0.02, "high": 0.01, "mde": 0.03}, "a change as large as is of interest is exc"),
        ({"low": -0.3, "high": 0.1, "mde": 0.2}, "it would have had to be 5 times what is of"),
        ({"low": -0.3, "high": 0.1, "mde": 0.03}, ""),
        ({"smallest_effect": float("nan")}, "no smallest effect of interest was declared"),
        ({"unit": "squared KID"}, "0.04, 0.2 unsquared, is of interest"),
        ({"claim": "C4"}, "C4 needs both C2 and C3"),
    ],
)
def test_a_quote_says_what_an_undecided_interval_leaves(
    values: dict[str, object], words: str
) -> None:
    row = {
        **{"dataset": "ham10000", "claim": "C2", "study": "main", "statement": "it helps"},
        **{"verdict": INCONCLUSIVE, "reason": "r", "p_holm": 0.4, "endpoint": "change"},
        **{"unit": "KID", "value": -0.01, "low": -0.1, "high": 0.1, "smallest_effect": 0.04},
        **{"mde": 0.01, "n": 200, "seeds": 6, **values},
    }
    nothing = pd.DataFrame()
    failed = ('check failed: "Sharp enough", wanted at least 0.6, found 0.1 (x)',)
    said = quote(row, Evidence("ham10000", [], nothing, nothing, nothing, failed), Protocol())
    assert words in said
    assert 'check failed: "Sharp enough"' in said and "wanted" not in said
    undecided = ("is excluded" in said) + ("it would have had to be" in said)
    assert undecided == (words[:4] in ("a ch", "it w"))


# -- planted against measured ----------------------------------------------------------------


def race_gaps() -> pd.DataFrame:
    """Black's KID is found 0.05 higher; Asian's can't be estimated; the loss is lower."""
    cells = [("Black", "kid", "lite0", 0.05, 0.01), ("Black", "kid", "random", 9.0, 0.1),
             ("Black", "denoising_loss", "", -0.03, 0.01),
             ("Asian", "kid", "lite0", float("nan"), float("nan"))]  # fmt: skip
    rows = [
        {"method": method, "seeds": seeds, "attribute": "race", "level": level,
         "reference": "White", "metric": metric, "features": features, "n": 30,
         "n_reference": 300, "value": value, "low": value - reach, "high": value + reach,
         "p_adjusted": 0.01, "mde": 1.4 * reach,
         "smallest_effect": 0.02 if metric == "kid" else float("nan")}
        for level, metric, features, value, reach in cells
        for method in ("none", "fairdiffusion")
        for seeds in ("0", "0,1")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def recovered(config: FundusPopulation) -> pd.DataFrame:
    declared = (
        Declared("race", "Black", "White", 30, 300, "secondary"),
        Declared("race", "Asian", "White", 90, 300, "primary"),
    )
    rule = Protocol(dataset="fairgenmed_simulated", contrasts=declared)
    return planted_table(race_gaps(), config, rule)


def test_what_was_planted_stands_beside_what_was_measured() -> None:
    found = recovered(FundusPopulation(difficulty_black=3.0))
    assert list(found["level"]) == ["Black", "Black", "Asian"]  # of the mean, without other spaces
    first = found.iloc[0]
    assert (first["planted"], first["difficulty"]) == ("camera noise x 3", 3.0)
    assert (first["role"], first["seeds"]) == ("secondary", "0,1")
    assert first["value"] == 0.05 and first["excludes_zero"] and first["detectable"]
    assert first["direction"] == "worse, as planted"
    loss = found.iloc[1]
    assert loss["metric"] == "denoising_loss" and loss["detectable"] is None
    assert (found.iloc[2]["planted"], found.iloc[2]["excludes_zero"]) == ("nothing", None)
    text = about_planted(found)
    assert "Race: Black (n=30), drawn with camera noise x 3, is seen: worse, as planted" in text
    assert "is seen: better, against what was planted" in text
    assert "Where nothing was planted" not in text  # Asian has no interval
    other = recovered(FundusPopulation(difficulty_black=1.0, difficulty_asian=2.0))
    assert "2 of 2 intervals exclude 0" in about_planted(other)  # Black's: false alarms


def test_an_effect_that_is_missed_says_what_could_have_been_found() -> None:
    gaps = race_gaps().assign(low=-0.1, high=0.2, mde=0.2)
    declared = (Declared("race", "Black", "White", 30, 300, "secondary"),)
    rule = Protocol(dataset="fairgenmed_simulated", contrasts=declared)
    found = planted_table(gaps, FundusPopulation(difficulty_black=3.0), rule)
    assert not found["excludes_zero"].any() and found.iloc[0]["detectable"] is False
    assert (
        "0.2 would have been found in four of five cases, more than is of interest"
        in about_planted(found)
    )


def test_a_planted_reference_counts_too() -> None:
    config = ChestPopulation(difficulty_female=2.0)
    rule = Protocol(contrasts=(Declared("sex", "Male", "Female", 90, 100, "primary"),))
    gaps = race_gaps().assign(attribute="sex", level="Male", reference="Female")
    assert planted_table(gaps, config, rule)["difficulty"].unique().tolist() == [0.5]


def test_what_was_planted_is_named_by_level() -> None:
    assert planted(FundusPopulation(difficulty_black=1.0)) == {}
    both = FundusPopulation(difficulty_black=3.0, heterogeneity_black=2.0, difficulty_hispanic=0.5)
    assert planted(both) == {
        ("race", "Black"): "camera noise x 3 and spread of appearance x 2",
        ("ethnicity", "Hispanic"): "camera noise x 0.5",
    }
    assert planted(ChestPopulation()) == {("race", "Black"): "noise and blur of the film x 3"}
