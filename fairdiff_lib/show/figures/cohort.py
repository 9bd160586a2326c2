"""Notebook 01: who is in the cohort (F1)."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fairdiff_lib.settings.names import name_of
from fairdiff_lib.show.front import figure
from fairdiff_lib.show.panels import (
    Rows,
    beside,
    in_order,
    level_rows,
    name_rows,
    of_level,
    panel_legend,
    require,
    stacked,
    whisker,
)
from fairdiff_lib.show.style import SPLITS, STYLE, Look, dataset_name, level_looks, page

SIDE_BY_SIDE = 4  # conditions that a page has room for


@figure("fig01")
def fig01(table: Rows, notes: Sequence[str] = (), *, confidence: float = 0.95) -> Figure:
    """Cohort: subjects by level and split, and prevalence of every condition.

    Parameters
    ----------
    table : DataFrame
        As ``cohort_table`` gives it.
    notes : sequence of str
        Warnings to print on the page.
    confidence : float
        Of the intervals.
    """
    columns = ("split", "attribute", "level", "condition", "condition_level", "metric", "value")
    dataset = require(table, ("dataset", *columns, "low", "high"), "fig01")
    shares = table[table["metric"] == "prevalence"]
    conditions, rows = in_order(shares, "condition"), level_rows(table)
    foot = f"Bars: subjects. Dots: share of subjects, with {confidence:.0%} interval (Wilson)."
    rest = [conditions[i : i + SIDE_BY_SIDE] for i in range(1, len(conditions), SIDE_BY_SIDE)]
    height = 1.5 + 0.2 * len(rows) * (1 + len(rest)) + 0.5 * len(rest)
    fig = page(height, f"Who is in the cohort? {dataset_name(dataset)}", foot, notes)
    with matplotlib.rc_context(STYLE):
        parts = stacked(fig, 1 + len(rest))
        first, second = parts[0].subplots(1, 2)
        _counts(first, table[table["metric"] == "count"], rows)
        of_first = shares[shares["condition"] == conditions[0]]
        last = in_order(of_first, "condition_level")[-1]
        per_split = of_first[of_first["condition_level"] == last]
        _shares(second, per_split, rows, "split", {k: SPLITS[k] for k in SPLITS}, conditions[0])
        second.set_xlabel(f"share of subjects: {last}")
        for sub, line in zip(parts[1:], rest, strict=True):
            below = sub.subplots(1, len(rest[0]), squeeze=False)[0]
            for ax, condition in zip(below, line, strict=False):
                own = shares[(shares["condition"] == condition) & (shares["split"] == "all")]
                looks = {x.label: x for x in level_looks(in_order(own, "condition_level"))}
                _shares(ax, own, rows, "condition_level", looks, condition)
                ax.set_xlabel("share of subjects, all splits")
            for ax in below[len(line) :]:
                ax.remove()
        for sub in parts:
            _name_levels(sub.axes, rows)
    return fig


def _name_levels(axes: Sequence[Axes], rows: Sequence[tuple[str, str]]) -> None:
    """Level names down the first panel, thin lines between the attributes in all."""
    labels = ["All" if a == "overall" else level for a, level in rows]
    breaks = [i - 0.5 for i in range(1, len(rows)) if rows[i][0] != rows[i - 1][0]]
    for i, ax in enumerate(axes):
        name_rows(ax, labels if i == 0 else [""] * len(rows), breaks=breaks)


def _counts(ax: Axes, table: Rows, rows: Sequence[tuple[str, str]]) -> None:
    """Stacked bars of subjects, a shade per split, the three counts written at the end."""
    own = table[table["split"].isin(SPLITS)]
    own = own.assign(place=[rows.index(key) for key in zip(own["attribute"], own["level"], strict=True)])
    sns.histplot(
        own, y="place", weights="value", hue="split", hue_order=list(SPLITS)[::-1], discrete=True,
        multiple="stack", shrink=0.62, palette={k: look.colour for k, look in SPLITS.items()},
        alpha=1, lw=0, legend=False, ax=ax,
    )  # fmt: skip
    longest = 0.0
    for at, key in enumerate(rows):
        values = of_level(own, *key).set_index("split")["value"]
        counts = [float(values.get(split, 0.0)) for split in SPLITS]
        ax.text(sum(counts), at, "  " + " | ".join(f"{x:,.0f}" for x in counts), va="center",
                fontsize=6.5)  # fmt: skip
        longest = max(longest, sum(counts))
    ax.set_xlim(0, longest * 1.45)
    ax.set(xlabel="subjects: training | validation | test", ylabel="")
    ax.set_title("Size", loc="left")


def _shares(
    ax: Axes,
    table: Rows,
    rows: Sequence[tuple[str, str]],
    column: str,
    looks: dict[str, Look],
    condition: str,
) -> None:
    """Share of subjects by level, a mark per value of ``column``."""
    for at, key in enumerate(rows):
        for i, (name, look) in enumerate(looks.items()):
            own = of_level(table, *key)
            for _, row in own[own[column] == name].iterrows():
                whisker(ax, row, at + beside(len(looks), i), look, across=True)
    ax.set_xlim(0, 1)
    ax.set_title(name_of(condition), loc="left")
    panel_legend(ax, list(looks.values()))
