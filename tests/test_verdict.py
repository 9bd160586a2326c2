"""The rule of T14 on tables whose answer is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from fairdiff_lib.verdict import (
    CONTRADICTED,
    INCONCLUSIVE,
    NOT_TESTABLE,
    SUPPORTED,
    Evidence,
    Protocol,
    verdicts,
)

LEVELS = {"overall": ("all",), "sex": ("Female", "Male")}
RNG = np.random.default_rng(0)
Value = Callable[[str, int, str], float]  # method, seed, level


def quality(value: Value, seeds: int) -> pd.DataFrame:
    rows = [
        {"dataset": "d", "method": method, "seeds": str(seed), "attribute": attribute,
         "level": level, "metric": "kid", "n": 200, "value": value(method, seed, level),
         "low": np.nan, "high": np.nan}
        for method in ("none", "fairdiffusion")
        for seed in range(seeds)
        for attribute, levels in LEVELS.items()
        for level in levels
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


def contrasts(value: float, reach: float, p: float, seeds: int) -> pd.DataFrame:
    rows = [
        {"method": method, "seed": seed, "metric": "kid", "attribute": "sex", "level": "Male",
         "value": value, "low": value - reach, "high": value + reach, "p_adjusted": p,
         "role": "primary"}
        for method in ("none", "fairdiffusion")
        for seed in range(seeds)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def base(method: str, seed: int, level: str) -> float:
    """The method lowers every KID, and the spread between the levels."""
    gap = 0.02 if level == "Male" else 0.0
    own = 1.0 if method == "none" else 0.5
    return own * (0.10 + gap) + 0.001 * seed


def judge(
    *,
    dataset: str = "ham10000",
    value: Value = base,
    seeds: int = 6,
    better: float = 0.05,
    gaps: pd.DataFrame | None = None,
    failed: tuple[str, ...] = (),
) -> dict[str, str]:
    evidence = Evidence(
        dataset,
        ["sex"],
        "malignant",
        quality(value, seeds),
        contrasts(0.05, 0.01, 0.001, seeds) if gaps is None else gaps,
        downstream(better, seeds),
        failed,
    )
    table = verdicts(evidence)
    return dict(zip(table["claim"], table["verdict"], strict=True))


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
    def down(method: str, seed: int, level: str) -> float:
        fair = {"all": 0.08, "Female": 0.12, "Male": 0.12}[level]
        own = base("none", seed, level)
        return own if method == "none" else fair + 0.001 * seed

    assert judge(value=down)["C2"] == INCONCLUSIVE


def test_noise_decides_nothing() -> None:
    rng = np.random.default_rng(1)
    assert judge(value=lambda m, s, lv: 0.1 + 0.02 * rng.normal())["C2"] == INCONCLUSIVE
    assert judge(better=0.0)["C3"] == INCONCLUSIVE


@pytest.mark.parametrize(
    ("value", "reach", "p", "wanted"),
    [
        (0.05, 0.01, 0.001, SUPPORTED),
        (0.005, 0.001, 0.001, CONTRADICTED),  # significant, and surely too small to matter
        (0.002, 0.003, 0.6, CONTRADICTED),  # surely smaller than what matters
        (0.01, 0.05, 0.6, INCONCLUSIVE),  # nothing seen, nothing ruled out
    ],
)
def test_disparity_needs_size_and_certainty(
    value: float, reach: float, p: float, wanted: str
) -> None:
    assert judge(gaps=contrasts(value, reach, p, 6))["C1"] == wanted


def test_a_failed_gate_makes_findings_inconclusive() -> None:
    found = judge(failed=("gate vae failed",))
    assert found["C1"] == found["C2"] == found["C3"] == found["C4"] == INCONCLUSIVE


def test_the_rule_has_a_digest_that_follows_its_values() -> None:
    assert Protocol().digest == Protocol().digest != Protocol(least_seeds=4).digest
