"""Main figures: drawn from tables, by whatever data sets have results; without tables, none."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest

from docs import figures
from fairdiff_lib.disk.files import read_json
from fairdiff_lib.disk.stamps import publish_table
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.show.figures.main import Found, main3, main4
from fairdiff_lib.show.style import STYLE

LEVELS = (("overall", "all"), ("sex", "Female"), ("sex", "Male"))


def found(dataset: str) -> Found:
    rows = [
        {"method": method, "attribute": attribute, "level": level, "metric": metric, "n": 40,
         "features": "lite0", "seeds": "0", "n_seeds": 1, "sd": np.nan, "value": 0.3, "low": 0.2,
         "high": 0.4, "dataset": dataset}
        for method in ("none", "fairdiffusion") for attribute, level in LEVELS
        for metric in ("kid", "equivalent_blur")
    ]  # fmt: skip
    tests = pd.DataFrame([
        {"claim": "C1", "endpoint": "equivalent_blur", "attribute": "sex", "level": "Male",
         "reference": "Female", "value": 0.3, "low": 0.2, "high": 0.4, "outcome": "larger",
         "testable": True, "smallest_effect": 0.1}
    ])  # fmt: skip
    images = {"Female": np.zeros((2, 3, 8, 8), np.uint8), "Male": np.ones((3, 3, 8, 8), np.uint8)}
    return Found(dataset, pd.DataFrame(rows), tests, pd.DataFrame(), images, "malignant")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_page_holds_as_many_data_sets_as_have_results(count: int) -> None:
    names = ("ham10000", "nih_chestxray14", "odir5k")[:count]
    page = main3([found(name) for name in names])
    words = [text.get_text() for text in page.findobj() if hasattr(text, "get_text")]
    assert words.count("KID") == count and "Female (40)" in words
    assert words.count("no classifier yet") == count
    assert sum(len(ax.images) for ax in page.axes) == 5 * count


def test_real_results_stand_before_simulated_ones(tmp_path: Path) -> None:
    for place in ("quick/fairgenmed_simulated", "reference/odir5k", "reference/ham10000"):
        publish_table(found("x").tests, tmp_path / place / "tab_tests.csv", {"simulated": False})
    assert figures.studied(tmp_path) == [("reference", "ham10000"), ("reference", "odir5k")]


def test_without_tables_only_the_schematic_is_drawn_and_old_pages_go(tmp_path: Path) -> None:
    old = tmp_path / "main" / "main3.png"
    old.parent.mkdir()
    old.write_text("of tables that are gone")
    assert [path.name for path in figures.draw_all(tmp_path)] == ["main1.png"]
    assert not old.exists()


def explained() -> pd.DataFrame:
    row = {"dataset": "ham10000", "quantity": "explained_groups", "method": "base"}
    return pd.DataFrame([row | {"value": 0.2, "low": 0.1, "high": 0.3}])


def test_a_figure_names_the_tables_that_it_rests_on(tmp_path: Path) -> None:
    name = "reference/ham10000/ablation/tab_mechanism"
    publish_table(explained(), tmp_path / f"{name}.csv", {"simulated": True})
    figures.draw_all(tmp_path)
    stamp = read_json(tmp_path / "main" / "main4.json")
    assert list(stamp["rests_on"]) == [f"figures/{name}.csv"] and stamp["simulated"]


def test_changes_as_small_as_ours_have_readable_ticks() -> None:
    """Pages set no math, so an axis must not ask for it."""
    arms = pd.DataFrame([
        {"method": name, "baseline": "none", "attribute": "overall", "metric": "kid",
         "seeds": "0,1", "features": "lite0", "value": 1e-4, "low_new": -1e-4, "high_new": 3e-4,
         "smallest_effect": 5e-4}
        for name in ("fairdiffusion", "shuffled_y", "group_balanced")
    ])  # fmt: skip
    alone = arms.iloc[:1].assign(method="none", baseline=np.nan, value=0.05)
    arms = pd.concat([alone, arms])
    page = main4(explained(), {"ham10000": arms})
    with matplotlib.rc_context(STYLE):
        page.savefig(io.BytesIO(), format="png")
    words = [text.get_text() for text in page.findobj() if hasattr(text, "get_text")]
    assert not [word for word in words if "mathdefault" in word]
    assert "FairDiffusion" in words and "group-balanced sampling" in words


def arm(name: str, value: float, reach: float, smallest: float) -> dict[str, object]:
    return {"method": name, "baseline": "none", "attribute": "overall", "metric": "kid",
            "seeds": "0,1,2", "features": "lite0", "value": value, "low_new": value - reach,
            "high_new": value + reach, "smallest_effect": smallest}  # fmt: skip


def test_a_change_told_from_nothing_is_seen_though_x_is_as_large_as_all() -> None:
    alone = arm("none", 0.1, 0.0, np.nan) | {"baseline": ""}
    rows = [alone, arm("fairdiffusion", 0.0, 0.001, 0.1), arm("group_balanced", 0.003, 0.001, 0.1)]
    page = main4(explained(), {"fairgenmed_simulated": pd.DataFrame(rows)})
    words = [text.get_text() for text in page.findobj() if hasattr(text, "get_text")]
    assert "+3.0%" in words and "+0.0%" not in words
    foot = " ".join(" ".join(words).split())
    assert "Both are of HAM10000." in foot
    assert "is 100% in c" in foot and "Told from no change: group-balanced sampling (c)" in foot
    assert max(page.axes[-1].get_xlim()) < 10


def test_both_claims_about_blur_stand_beside_x_and_zero() -> None:
    one = found("ham10000")
    change = one.tests.assign(claim="C2", attribute="overall", level="all", reference="",
                              value=0.01, low=0.0, high=0.02, outcome="no_larger")  # fmt: skip
    page = main3([replace(one, tests=pd.concat([one.tests, change]))])
    (ax,) = [x for x in page.axes if x.get_title(loc="left").startswith("C2")]
    assert [0.01] in [list(line.get_xdata()) for line in ax.lines]
    upright = {line.get_xdata()[0] for line in ax.lines if len({*line.get_xdata()}) == 1}
    assert {-0.1, 0, 0.1} <= upright


def test_nothing_is_drawn_of_no_data_set() -> None:
    with pytest.raises(InputError, match="no data set has results"):
        main3([])
