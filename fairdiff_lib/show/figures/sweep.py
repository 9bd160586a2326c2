"""Notebook 15: guidance and sampler steps, overall as heat maps, by level as lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fairdiff_lib.settings.names import NOT_ESTIMABLE, name_of
from fairdiff_lib.show.front import Nothing, figure
from fairdiff_lib.show.panels import Rows, beside, heat, in_order, panel_legend, require, whisker
from fairdiff_lib.show.style import STYLE, Look, dataset_name, level_looks, look_of, page

AXES = {"guidance": "guidance scale", "steps": "denoising steps"}


@figure("fig_sweep")
def fig_sweep(
    table: Rows, *, guidance: float, steps: int, features: str, notes: Sequence[str] = ()
) -> Figure:
    """KID of every cell: a heat map overall, and lines by level through the study's own cell.

    Parameters
    ----------
    table : DataFrame
        dataset, method, guidance, steps, attribute, level, metric, features, n, value, low,
        high, as ``studies.sweep`` makes.
    guidance, steps : float, int
        The study's own cell: framed, and where the lines cross.
    features : str
        Feature space that is shown.
    notes : sequence of str
        Warnings to print on the page.
    """
    columns = ("method", "guidance", "steps", "attribute", "level", "metric", "features")
    dataset = require(table, ("dataset", *columns, "n", "value", "low", "high"), "fig_sweep")
    kid, own = table[table["metric"] == "kid"], {"guidance": guidance, "steps": steps}
    shown = kid[kid["features"] == features]
    if not ((shown["guidance"] == guidance) & (shown["steps"] == steps)).any():
        cell = f"guidance {guidance:g}, {steps} steps"
        raise Nothing(f"fig_sweep: the table has no KID at {cell}, features {features!r}")
    names = [name for name in in_order(shown, "attribute") if name != "overall"]
    foot = (
        f"{look_of(str(shown['method'].iloc[0])).label}, one trained model; the same prompts and "
        "initial noise in every cell. Frame: the study's own cell; darker: worse within a map. The "
        f"lines, in {features} features, pass through it. KID (Kernel Inception Distance), lower "
        "is better, with 95% interval over subjects; rare levels are drawn more often than they "
        "occur. In brackets: subjects. Overlapping intervals are no test: the paired changes are."
    )
    maps = kid[kid["attribute"] == "overall"]
    tall = 0.75 + 0.42 * maps["guidance"].nunique()
    fig = page(tall + 4.4, f"Guidance and steps, by group: {dataset_name(dataset)}", foot, notes)
    with matplotlib.rc_context(STYLE):
        parts: Any = fig.subfigures(2, 1, height_ratios=[tall, 3.4])
        spaces = in_order(maps, "features")
        for ax, space in zip(parts[0].subplots(1, len(spaces), squeeze=False)[0], spaces,
                             strict=True):  # fmt: skip
            _map(ax, maps[maps["features"] == space], own)
            many = int(maps.loc[maps["features"] == space, "n"].max())
            ax.set_title(f"KID of all ({many}), {space} features", loc="left")
        _by_level(parts[1], shown, own, names)
    return fig


def _map(ax: Axes, cells: Rows, own: dict[str, float]) -> None:
    """A square per cell with its KID and interval; the own one framed."""
    words = [
        f"{value:.3f}\n{low:.3f} to {high:.3f}" if np.isfinite(value) else NOT_ESTIMABLE
        for value, low, high in cells[["value", "low", "high"]].to_numpy(dtype=float)
    ]
    keys = {"index": "guidance", "columns": "steps"}
    square = cells.pivot(**keys, values="value").sort_index(ascending=False)
    text = cells.assign(words=words).pivot(**keys, values="words").loc[square.index]
    heat(ax, square, text, cmap="Oranges", yticklabels=[f"{x:g}" for x in square.index])
    ax.set(xlabel=AXES["steps"], ylabel=AXES["guidance"])
    x, y = list(square).index(own["steps"]), list(square.index).index(own["guidance"])
    frame: dict[str, Any] = {"fill": False, "ec": "black", "lw": 1.4, "zorder": 3}
    ax.add_patch(matplotlib.patches.Rectangle((x + 0.03, y + 0.03), 0.94, 0.94, **frame))


def _by_level(part: Any, shown: Rows, own: dict[str, float], names: Sequence[str]) -> None:
    """Two rows of panels: along guidance at the own steps, along steps at the own guidance."""
    axes = part.subplots(2, len(names), squeeze=False, sharey=True)
    for row, (along, other) in zip(axes, (("guidance", "steps"), ("steps", "guidance")),
                                   strict=True):  # fmt: skip
        cut = shown[shown[other] == own[other]]
        for ax, name in zip(row, names, strict=True):
            _lines(ax, cut[cut["attribute"] == name], along, _looks(shown, name))
            ax.set_xlabel(AXES[along])
        row[0].set_ylabel(f"KID\n{AXES[other]}: {own[other]:g}")
    for ax, name in zip(axes[0], names, strict=True):
        ax.set_title(name_of(name), loc="left")
        panel_legend(ax, list(_looks(shown, name).values()))


def _looks(table: Rows, name: str) -> dict[str, Look]:
    """Colour of every level, with its n."""
    own = table[table["attribute"] == name]
    levels, sizes = in_order(own, "level"), own.groupby("level")["n"].min()
    looks = level_looks([f"{level} ({sizes[level]})" for level in levels])
    return dict(zip(levels, looks, strict=True))


def _lines(ax: Axes, own: Rows, along: str, looks: dict[str, Look]) -> None:
    """KID of each level along one axis of the grid."""
    places = sorted(set(own[along]))
    for k, (level, look) in enumerate(looks.items()):
        rows = own[own["level"] == level].sort_values(along)
        xs = [places.index(x) + beside(len(looks), k, most=0.12) for x in rows[along]]
        ax.plot(xs, rows["value"], color=look.colour, lw=0.9, alpha=0.75, zorder=1)
        for x, (_, row) in zip(xs, rows.iterrows(), strict=True):
            whisker(ax, row, x, look)
    ax.set_xticks(range(len(places)), [f"{x:g}" for x in places])
    ax.set_xlim(-0.45, len(places) - 0.55)
    ax.grid(axis="y")
