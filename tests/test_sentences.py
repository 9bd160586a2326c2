"""Sentences name the extremes that the table holds, and what one seed can't say."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fairdiff_lib import sentences


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
    assert "lowest for White, 0.1 (0.05 to 0.15)" in text
    assert "highest for Black, 0.5 (0.45 to 0.55)" in text
    assert "nan" not in text and "With one training seed" in text
    assert "With one training seed" not in sentences.about_quality(quality("0,1,2"), ["race"])


def test_gates_say_which_failed() -> None:
    gates = pd.DataFrame({"gate": ["vae", "prompt"], "method": ["none"] * 2, "passed": [True] * 2})
    assert sentences.about_gates(gates) == "All 2 gates passed."
    failed = sentences.about_gates(gates.assign(passed=[True, False]))
    assert "1 of 2 gates failed: prompt (none)" in failed


def test_one_setting_compares_nothing() -> None:
    table = pd.DataFrame({"dataset": ["d"], "time_window": [30], "exploitation_rate": [0.95]})
    assert "nothing can be compared" in sentences.about_ablations(table)
    more = pd.concat([table, table.assign(time_window=10)])
    assert sentences.about_ablations(more).startswith("2 settings")
