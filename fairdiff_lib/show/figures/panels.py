"""Pictures of an audit: levels as dots with their noise floor, and what FID does as n grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.show.front import figure
from fairdiff_lib.show.style import (
    LEVEL_COLOURS,
    MUTED,
    STYLE,
    Look,
    name_of,
    page,
    require,
    whisker,
)

LEVEL = Look("", "#0072b2", "o")
EVERYONE = Look("", "#000000", "D")
ROW = 0.21  # inches that a level takes
FLOOR = "#dcdcdc"


def dot_rows(table: pd.DataFrame) -> list[tuple[str, pd.Series[Any] | None]]:
    """Lines of the dot plot: a heading per attribute (no row), a label and row per level."""
    lines: list[tuple[str, pd.Series[Any] | None]] = []
    for attribute, own in table.groupby("attribute", sort=False):
        if attribute == "overall":
            lines += [("All", row) for _, row in own.iterrows()]
            continue
        lines.append((name_of(str(attribute)), None))
        lines += [(str(row["level"]), row) for _, row in own.iterrows()]
    return lines


def draw_dots(ax: Axes, table: pd.DataFrame) -> None:
    """Levels below each other: dot, interval, n, and the floor shaded behind.

    Parameters
    ----------
    ax : Axes
    table : DataFrame
        attribute, level, metric, n, value, low, high, and floor_low, floor_high where known.
    """
    lines = dot_rows(table)
    for at, (_, row) in enumerate(lines):
        if row is None:
            ax.axhline(at - 0.5, color="#dddddd", lw=0.6, zorder=0)
            continue
        low, high = float(row.get("floor_low", np.nan)), float(row.get("floor_high", np.nan))
        if np.isfinite(low) and np.isfinite(high):
            ax.fill_betweenx([at - 0.42, at + 0.42], low, high, color=FLOOR, lw=0, zorder=1)
        look = EVERYONE if row["attribute"] == "overall" else LEVEL
        whisker(ax, row, at, look, across=True)
        wording: dict[str, Any] = {
            "transform": ax.get_yaxis_transform(),
            "va": "center",
            "color": MUTED,
        }
        if not np.isfinite(row["value"]):
            ax.text(0.99, at, "not estimable", fontsize=6.5, ha="right", **wording)
        ax.text(1.01, at, f"n={int(row['n'])}", fontsize=7, **wording)
    ax.axvline(0, color="#bbbbbb", lw=0.6, zorder=0)
    ax.grid(axis="x", color="#eeeeee", lw=0.6)
    ax.set_axisbelow(True)
    ax.set_ylim(len(lines) - 0.5, -0.5)
    ax.set_yticks(range(len(lines)), [text for text, _ in lines])
    ax.tick_params(axis="y", length=0)
    for label, (_, row) in zip(ax.get_yticklabels(), lines, strict=True):
        label.set_fontweight("bold" if row is None else "normal")
    ax.set_xlabel(name_of(str(table["metric"].iloc[0])))


def dots_foot(table: pd.DataFrame, unit: str = "subject", confidence: float = 0.95) -> str:
    """What the marks of a dot plot mean."""
    marks = f"Dots: value with {confidence:.0%} interval over {unit}s. n: {unit}s. "
    known = "floor_low" in table and table["floor_low"].notna().any()
    band = "Grey: what noise alone gives between two halves of the real images. " if known else ""
    return f"{marks}{band}Overlapping intervals are no test: the contrasts are."


@figure("by_group", kept=False)
def by_group_dots(
    table: pd.DataFrame,
    *,
    title: str = "Image quality by group",
    unit: str = "subject",
    confidence: float = 0.95,
    notes: Sequence[str] = (),
) -> Figure:
    """One generator's metric by level, each with interval, n and the real-real floor.

    Parameters
    ----------
    table : DataFrame
        ``Audit.by_group``; with floor_low and floor_high the floor is shaded.
    title : str
        Says "simulated" where the images are.
    unit : str
        What n counts.
    confidence : float
        Of the intervals.
    notes : sequence of str
        Warnings to print on the page.

    Raises
    ------
    InputError
        The table lacks a column or has no row, or more than one metric.
    """
    columns = ("attribute", "level", "metric", "n", "value", "low", "high")
    require(table.assign(dataset="own"), columns, "by-group dots")
    if table["metric"].nunique() != 1:
        names = ", ".join(sorted(set(table["metric"])))
        raise InputError(f"by-group dots: expected one metric, found {names}")
    height = 1.0 + ROW * len(dot_rows(table))
    fig = page(height, title, dots_foot(table, unit, confidence), notes)
    with matplotlib.rc_context(STYLE):
        draw_dots(fig.subplots(), table)
    return fig


def narrow_dots(table: pd.DataFrame, width: float) -> Figure:
    """The dot plot alone, ``width`` inches wide, for a card that brings its own words."""
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(width, 0.55 + ROW * len(dot_rows(table))), layout="constrained")
        ax = fig.subplots()
        draw_dots(ax, table)
        ax.locator_params(axis="x", nbins=5)  # numbers that don't touch
    return fig


@figure("fid_against_n", kept=False)
def fid_against_n_figure(
    rows: pd.DataFrame,
    *,
    limits: Mapping[str, float] | None = None,
    title: str = "FID of the same images, by how many of them are used",
    limit: str = "FID at n without end, from a line through FID against 1/n",
    notes: Sequence[str] = (),
) -> Figure:
    """Plain FID falls as n grows: two levels of unequal n differ in it without any disparity.

    Parameters
    ----------
    rows : DataFrame
        n, draw, value, as ``frechet.fid_against_n`` makes; a column ``level`` where there are
        several.
    limits : mapping of str to float, optional
        Level to its FID at n without end: a dashed line. The empty name without levels, or where
        all levels have the same.
    title : str
        Says "simulated" where the images are.
    limit : str
        What the dashed lines are.
    notes : sequence of str
        Warnings to print on the page.

    Raises
    ------
    InputError
        The table lacks a column or has no row.
    """
    require(rows.assign(dataset="own"), ("n", "draw", "value"), "FID against n")
    table = rows if "level" in rows else rows.assign(level="")
    levels = list(dict.fromkeys(table["level"].astype(str)))
    colours = [LEVEL_COLOURS[i % len(LEVEL_COLOURS)] for i in range(len(levels))]
    looks = [Look(level, colour, "o") for level, colour in zip(levels, colours, strict=True)]
    foot = (
        f"Lines: mean of {table['draw'].nunique()} random subset(s) of n images a side; dots: each."
    )
    if limits:
        foot += f" Dashed: {limit}."
    fig = page(3.0, title, foot, notes, [look for look in looks if look.label])
    with matplotlib.rc_context(STYLE):
        ax = fig.subplots()
        for look in looks:
            own = table[table["level"].astype(str) == look.label]
            mean = own.groupby("n")["value"].mean()
            ax.plot(own["n"], own["value"], ".", color=look.colour, ms=3, alpha=0.4)
            ax.plot(mean.index, mean, f"{look.marker}-", color=look.colour, ms=4.2, mec="white")
        for level, value in (limits or {}).items():
            if np.isfinite(value):
                colour = dict(zip(levels, colours, strict=True)).get(level, MUTED)
                ax.axhline(value, color=colour, lw=0.9, ls=(0, (4, 3)))
        _size_axis(ax, sorted(set(table["n"])))
    return fig


def _size_axis(ax: Axes, sizes: Sequence[int]) -> None:
    """A logarithmic axis that names the sizes that were used."""
    ax.set_xscale("log")
    ax.set_xticks(sizes, [f"{n:,}" for n in sizes])
    ax.minorticks_off()
    ax.set_ylim(bottom=0)
    ax.set_xlabel("n, images on each side (logarithmic)")
    ax.set_ylabel(name_of("fid"))
    ax.grid(axis="y", color="#eeeeee", lw=0.6)
    ax.set_axisbelow(True)
