"""Pictures of an audit show every level, its n, the floor, and what could not be estimated."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from fairdiff_lib.audit.fid import fid_against_n
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.show.figures.quality import by_group_dots, fid_against_n_figure

LEVELS = (("overall", "all"), ("sex", "F"), ("sex", "M"), ("age", "old"), ("age", "young"))


def texts(fig: Figure) -> list[str]:
    return [
        t.get_text().strip()
        for t in fig.findobj(Text)
        if isinstance(t, Text) and t.get_text().strip()
    ]


def groups(floor: bool = True) -> pd.DataFrame:
    rows = [
        {"attribute": attribute, "level": level, "metric": "kid", "n": 40 + k, "value": 0.01 * k,
         "low": 0.01 * k - 0.02, "high": 0.01 * k + 0.02, "note": ""}
        for k, (attribute, level) in enumerate(LEVELS)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    return table.assign(floor_low=-0.01, floor_high=0.015) if floor else table


def test_every_level_has_its_name_and_n() -> None:
    said = texts(by_group_dots(groups(), title="Simulated", notes=["gate failed"]))
    for words in ("All", "F", "M", "old", "young", "Sex", "Age", "Simulated"):
        assert words in said
    for k in range(len(LEVELS)):
        assert f"n={40 + k}" in said
    assert any("gate failed" in text for text in said)
    assert any("95% interval over subjects" in text for text in said)


def test_the_floor_is_shaded_and_explained_only_where_there_is_one() -> None:
    for floor in (True, False):
        fig = by_group_dots(groups(floor))
        assert len(fig.axes[0].collections) == (len(LEVELS) if floor else 0)
        assert any("Grey" in text for text in texts(fig)) is floor


def test_a_level_without_a_value_is_named_as_such() -> None:
    table = groups()
    table.loc[2, ["value", "low", "high"]] = np.nan
    said = texts(by_group_dots(table))
    assert said.count("not estimable") == 1 and "M" in said and "n=42" in said


def test_dots_stand_at_their_values() -> None:
    fig = by_group_dots(groups())
    points = [line for line in fig.axes[0].lines if line.get_marker() not in ("None", None)]
    drawn = [float(np.asarray(line.get_xdata())[0]) for line in points]
    assert drawn == pytest.approx([0.0, 0.01, 0.02, 0.03, 0.04])


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(InputError, match="has no column n"):
        by_group_dots(groups().drop(columns="n"))
    with pytest.raises(InputError, match="no row"):
        by_group_dots(groups().iloc[:0])
    with pytest.raises(InputError, match="expected one metric, found auc, kid"):
        by_group_dots(pd.concat([groups(), groups().assign(metric="auc")]))
    with pytest.raises(InputError, match="has no column draw"):
        fid_against_n_figure(pd.DataFrame({"n": [1], "value": [1.0]}))


def test_fid_against_n_names_its_sizes_levels_and_limits() -> None:
    rng = np.random.default_rng(0)
    parts, limits = [], {}
    for level, spread in (("varied", 1.5), ("uniform", 0.5)):
        x, y = rng.normal(0, spread, (2, 400, 4))
        rows = fid_against_n(x, y, [50, 200, 400], draws=3)
        limits[level] = float(rows["value"].min())
        parts.append(rows.assign(level=level))
    fig = fid_against_n_figure(pd.concat(parts), limits=limits, title="Simulated features")
    said = texts(fig)
    for words in ("50", "200", "400", "varied", "uniform", "Simulated features"):
        assert words in said
    dashed = [line for line in fig.axes[0].lines if len(set(np.asarray(line.get_ydata()))) == 1]
    heights = sorted(float(np.asarray(line.get_ydata())[0]) for line in dashed)
    assert heights == pytest.approx(sorted(limits.values()))


def test_a_limit_that_all_levels_share_is_one_line() -> None:
    rows = pd.DataFrame({"level": ["a", "b"] * 2, "n": [10, 10, 20, 20], "draw": 0, "value": 3.0})
    fig = fid_against_n_figure(rows, limits={"": 2.0}, limit="the truth")
    dashed = [line for line in fig.axes[0].lines if line.get_linestyle() == "--"]
    assert [float(np.asarray(line.get_ydata())[0]) for line in dashed] == [2.0]
    assert any("Dashed: the truth." in text for text in texts(fig))
