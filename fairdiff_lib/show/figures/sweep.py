"""The guidance x steps sweep in one picture: heat maps overall, lines by level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.show.figures.harm import level_looks
from fairdiff_lib.settings.names import name_of
from fairdiff_lib.show.panels import panel_legend, require, whisker
from fairdiff_lib.show.style import STYLE, dataset_name, look_of, page
from fairdiff_lib.studies.plans import Cell

Rows = pd.DataFrame
HEAT = "#d55e00"  # its strength goes from none at the grid's best cell to full at its worst
AXES = {"guidance": "guidance scale", "steps": "denoising steps"}


def fig_sweep(table: Rows, *, own: Cell, features: str, notes: Sequence[str] = ()) -> Figure:
    """KID of every cell: a heat map overall, and lines by level through the study's own cell.

    Parameters
    ----------
    table : DataFrame
        dataset, method, guidance, steps, attribute, level, metric, features, n, value, low,
        high, as ``sweep.collect_sweep`` makes.
    own : Cell
        The study's own: framed, and where the lines cross.
    features : str
        Feature space that is shown.
    notes : sequence of str
        Warnings to print on the page.

    Raises
    ------
    InputError
        The table lacks a column, the feature space or the own cell.
    """
    columns = ("method", "guidance", "steps", "attribute", "level", "metric", "features")
    dataset = require(table, ("dataset", *columns, "n", "value", "low", "high"), "fig_sweep")
    shown = table[(table["metric"] == "kid") & (table["features"] == features)]
    if not ((shown["guidance"] == own.guidance) & (shown["steps"] == own.steps)).any():
        raise InputError(f"fig_sweep: the table has no KID at {own.name}, features {features!r}")
    names = [name for name in dict.fromkeys(shown["attribute"]) if name != "overall"]
    foot = (
        f"{look_of(str(shown['method'].iloc[0])).label}, one trained model; the same prompts and "
        "initial noise in every cell. Frame: the study's own cell; darker: worse within a map. The "
        f"lines, in {features} features, pass through it. KID, lower is better, with 95% interval "
        "over subjects; rare levels are drawn more often than they occur. In brackets: subjects. "
        "Overlapping intervals are no test: the paired changes are."
    )
    maps = table[(table["metric"] == "kid") & (table["attribute"] == "overall")]
    tall = 0.75 + 0.42 * maps["guidance"].nunique()
    fig = page(tall + 4.4, f"Guidance and steps, by group: {dataset_name(dataset)}", foot, notes)
    with matplotlib.rc_context(STYLE):
        parts: Any = fig.subfigures(2, 1, height_ratios=[tall, 3.4])
        _maps(parts[0], maps, own)
        _by_level(parts[1], shown, own, names)
    return fig


def _maps(part: Any, maps: Rows, own: Cell) -> None:
    """A heat map per feature space."""
    spaces = list(dict.fromkeys(maps["features"]))
    for ax, space in zip(part.subplots(1, len(spaces), squeeze=False)[0], spaces, strict=True):
        _heat(ax, maps[maps["features"] == space], own)
        many = int(maps.loc[maps["features"] == space, "n"].max())
        ax.set_title(f"KID of all ({many}), {space} features", loc="left")


def _by_level(part: Any, shown: Rows, own: Cell, names: Sequence[str]) -> None:
    """Two rows of panels: along guidance at the own steps, along steps at the own guidance."""
    axes = part.subplots(2, len(names), squeeze=False, sharey=True)
    fixed = {"guidance": ("steps", own.steps), "steps": ("guidance", own.guidance)}
    for row, (along, (other, at)) in enumerate(fixed.items()):
        cut = shown[shown[other] == at]
        for ax, name in zip(axes[row], names, strict=True):
            _lines(ax, cut[cut["attribute"] == name], along)
            ax.set_xlabel(AXES[along])
        axes[row, 0].set_ylabel(f"KID\n{AXES[other]}: {at:g}")
    for ax, name in zip(axes[0], names, strict=True):
        ax.set_title(name_of(name), loc="left")
        panel_legend(ax, _looks(shown, name))


def _looks(table: Rows, name: str) -> list[Any]:
    """Colour and marker of every level, with its n."""
    own = table[table["attribute"] == name]
    levels = list(dict.fromkeys(own["level"]))
    sizes = own.groupby("level")["n"].min()
    return level_looks(levels, {level: int(sizes[level]) for level in levels})


def _lines(ax: Axes, own: Rows, along: str) -> None:
    """KID of each level along one axis of the grid."""
    places = sorted(set(own[along]))
    looks = _looks(own, str(own["attribute"].iloc[0]))
    for k, (level, look) in enumerate(zip(dict.fromkeys(own["level"]), looks, strict=True)):
        rows = own[own["level"] == level].sort_values(along)
        xs = [places.index(x) + 0.12 * (k - (len(looks) - 1) / 2) for x in rows[along]]
        ax.plot(xs, rows["value"], color=look.colour, lw=0.9, alpha=0.75, zorder=1)
        for x, (_, row) in zip(xs, rows.iterrows(), strict=True):
            whisker(ax, row, x, look)
    ax.set_xticks(range(len(places)), [f"{x:g}" for x in places])
    ax.set_xlim(-0.45, len(places) - 0.55)
    ax.grid(axis="y", color="#eeeeee", lw=0.6)
    ax.set_axisbelow(True)


def _heat(ax: Axes, own: Rows, usual: Cell) -> None:
    """A square per cell with its KID and interval."""
    guidances, steps = (sorted(set(own[name])) for name in ("guidance", "steps"))
    low, high = float(own["value"].min()), float(own["value"].max())
    for _, row in own.iterrows():
        at = steps.index(row["steps"]), guidances.index(row["guidance"])
        value = float(row["value"])
        share = (value - low) / (high - low) if high > low else 0.0
        mine = (row["guidance"], row["steps"]) == (usual.guidance, usual.steps)
        ax.add_patch(matplotlib.patches.Rectangle(
            (at[0] - 0.5, at[1] - 0.5), 1, 1, lw=0,
            fc=HEAT, alpha=0.75 * share if np.isfinite(share) else 0.0,
        ))  # fmt: skip
        if mine:
            ax.add_patch(matplotlib.patches.Rectangle(
                (at[0] - 0.47, at[1] - 0.47), 0.94, 0.94, fill=False, ec="black", lw=1.4, zorder=3
            ))  # fmt: skip
        text = f"{value:.3f}\n{row['low']:.3f} to {row['high']:.3f}"
        shown = text if np.isfinite(value) else "not estimable"
        ax.text(*at, shown, ha="center", va="center", fontsize=6.3, linespacing=1.2)
    ax.set(xlim=(-0.5, len(steps) - 0.5), ylim=(-0.5, len(guidances) - 0.5))
    ax.set_xticks(range(len(steps)), [f"{x:g}" for x in steps])
    ax.set_yticks(range(len(guidances)), [f"{x:g}" for x in guidances])
    ax.set(xlabel=AXES["steps"], ylabel=AXES["guidance"])
    ax.tick_params(length=0)
