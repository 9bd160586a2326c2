"""The rule of T14 on tables whose answer is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fairdiff_lib.protocol import Declared, Protocol
from fairdiff_lib.verdict import (
    CLAIMS,
    CONTRADICTED,
    INCONCLUSIVE,
    NOT_TESTABLE,
    PLANTED,
    SUPPORTED,
    Evidence,
    holm,
    verdicts,
)

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
             "value": number if features == "encoder" else 9.0}
            for attribute, level, metric, number in cells
            for features in ("encoder", "random")  # the second space must not count
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
        {"method": method, "seeds": seeds, "metric": "kid", "features": "encoder",
         "attribute": "sex", "level": "Male", "reference": "Female", "value": value,
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
    planted: dict[tuple[str, str], str] | None = None,
    before: bool = True,
) -> pd.DataFrame:
    evidence = Evidence(
        dataset,
        ["sex"],
        quality(value, seeds),
        contrasts(0.05, 0.01, 0.001, 0.99) if gaps is None else gaps,
        downstream(better, seeds),
        failed,
        planted,
        before,
    )
    return verdicts(evidence, RULE)


def judge(**options: Any) -> dict[str, str]:
    found = table(**options)
    return dict(zip(found["claim"], found["verdict"], strict=True))


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


def test_what_was_planted_stands_beside_what_was_measured() -> None:
    planted = {("sex", "Male"): "camera noise x 3", ("race", "Black"): "spread x 2"}
    row = table(dataset="fairgenmed_simulated", planted=planted).set_index("claim").loc[PLANTED]
    assert row["verdict"] == "1 of 2 seen in KID"
    assert (
        "camera noise x 3 for sex Male: KID minus that of Female measured as 0.05"
        in (row["reason"])
    )
    assert "no contrast could be measured" in row["reason"]
    assert list(table()["claim"]) == list(CLAIMS)


def test_a_protocol_written_afterwards_is_said() -> None:
    assert table()["reason"].str.contains("after test images").sum() == 0
    late = table(before=False).set_index("claim")["reason"]
    assert late.str.contains("written after test images existed").all()


def test_a_failed_gate_makes_findings_inconclusive() -> None:
    found = judge(failed=("gate vae failed",))
    assert found["C1"] == found["C2"] == found["C3"] == found["C4"] == INCONCLUSIVE
