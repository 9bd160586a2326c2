"""Sentences name the extremes that the table holds, and what one seed can't say."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fairdiff_lib.show import words as sentences
from fairdiff_lib.studies.verdict.protocol import Declared, Protocol


def quality(seeds: str) -> pd.DataFrame:
    values = {"Asian": 0.3, "Black": 0.5, "White": 0.1, "Other": np.nan}
    rows = [
        {"method": "none", "seeds": seeds, "attribute": "race", "level": level, "metric": "kid",
         "n": 40, "value": value, "low": value - 0.05, "high": value + 0.05}
        for level, value in values.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_quality_names_the_lowest_and_the_highest_level() -> None:
    text = sentences.about_quality(quality("0"), ["race"])
    assert "lowest for White, 0.100 (0.050 to 0.150)" in text
    assert "highest for Black, 0.500 (0.450 to 0.550)" in text
    assert "nan" not in text and "With one training seed" in text
    assert "With one training seed" not in sentences.about_quality(quality("0,1,2"), ["race"])


def test_gates_say_which_failed() -> None:
    gates = pd.DataFrame({"gate": ["vae", "below_blurred_reals"], "method": "none", "passed": True})
    assert sentences.about_gates(gates) == "All 2 checks passed."
    failed = sentences.about_gates(gates.assign(passed=[True, False]))
    assert "1 of 2 checks failed" in failed and "failed for Stable Diffusion" in failed
    assert "none" not in failed and "_" not in failed


def contrast(**values: object) -> pd.Series:
    row = {"attribute": "race", "level": "Black", "reference": "White", "value": 0.01,
           "low": -0.02, "high": 0.04, "p_adjusted": 0.5, "p_equivalence": 0.3,
           "smallest_effect": 0.02, "mde": 0.043, "mde_ratio": 1.43, "role": "primary",
           "note": ""}  # fmt: skip
    return pd.Series({**row, **values})


def test_no_difference_seen_is_not_no_difference() -> None:
    text = sentences.about_contrast(contrast())
    assert "no difference between Black and White was seen" in text
    assert "up to 0.043 could have been missed, 1.43 times the value of White" in text
    assert "equivalent" not in text
    same = sentences.about_contrast(contrast(p_equivalence=0.01))
    assert "are equivalent**, to within 0.02" in same and "no difference" not in same
    clear = sentences.about_contrast(contrast(p_adjusted=0.001))
    assert "Black differs from White" in clear and "0.0100 (-0.0200 to 0.0400)" in clear
    assert "adjusted p 0.001" in clear
    small = sentences.about_contrast(contrast(p_adjusted=0.001, p_equivalence=0.01))
    assert "differs" in small and "less than 0.02" in small
    missing = contrast(p_adjusted=np.nan, note="not estimable: fewer than 10 subjects")
    assert sentences.about_contrast(missing).endswith("not estimable: fewer than 10 subjects.")
    near_zero = sentences.about_contrast(contrast(mde_ratio=np.nan))
    assert "could have been missed;" in near_zero


def test_only_declared_contrasts_get_a_line() -> None:
    table = pd.DataFrame([contrast(), contrast(role="exploratory", level="Asian")])
    assert "Asian" not in sentences.about_contrasts(table)
    none = sentences.about_contrasts(table[table["role"] == "exploratory"])
    assert none == "No group that was declared has enough subjects to be tested first."


def test_a_difference_of_a_small_group_is_told_apart() -> None:
    small = contrast(role="secondary", level="Asian", p_adjusted=0.001)
    first, said, last = sentences.about_contrasts(pd.DataFrame([contrast(), small])).split("\n\n")
    assert "Black" in first and "Asian" not in first and "of few subjects" in said
    assert "Asian differs from White" in last


def test_the_protocol_says_when_it_was_written() -> None:
    rule = Protocol(contrasts=(Declared("race", "Asian", "White", 30, 300, "secondary"),))
    text = sentences.about_protocol(rule, True, "2026-01-31")
    assert rule.digest in text and "written on 2026-01-31, before" in text
    assert "compares Asian against White. Of its 0 tests, 0 can be decided" in text
    assert "**after**" in sentences.about_protocol(rule, before=False)
