"""Pictures of the ablation study: T12's cells with the noise that they amount to, and all arms."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.show.panels import require, whisker
from fairdiff_lib.settings.methods import METHODS
from fairdiff_lib.show.style import MUTED, STYLE, Look, dataset_name, handles, look_of, page

ROW = 0.17  # inches that an arm takes
ROLES = {  # heading of the arms of a role
    "core": "Core arms (tested)",
    "control": "Controls",
    "rival": "Rivals",
    "window": "Window and drift rate",
    "option": "One option at a time",
}
SHOWN = {  # metric: axis label
    "kid": "change in KID",
    "kid_disparity": "change in squared KID\ndifference of levels",
    "denoising_loss_disparity": "change in squared loss\ndifference of levels",
}
GREY = "#eeeeee"


def arm_look(name: str) -> Look:
    """Label, colour and marker of an arm; one with options looks like its method."""
    method, _, rest = name.partition(" ")
    known = look_of(method) if method in METHODS else None
    if known is None:
        raise InputError(f"arm {name!r}: unknown method {method!r}")
    return Look(f"{known.label}: {rest}" if rest else known.label, known.colour, known.marker)


# -- F7 --------------------------------------------------------------------------------------


def fig07(cells: pd.DataFrame, doses: pd.DataFrame, notes: Sequence[str] = ()) -> Figure:
    """T12's cells, and every arm of pure noise by the noise that it amounts to.

    Parameters
    ----------
    cells : DataFrame
        T12 of one dataset; without a row, a page that says so.
    doses : DataFrame
        As ``comparisons.dose_table``.
    notes : sequence of str
        Warnings to print on the page.
    """
    if cells.empty:
        return page(0.7, "Does the optimiser's setting matter?", "Not run on this data set.", notes)
    columns = ("dataset", "time_window", "exploitation_rate", "baseline", "metric", "seeds")
    dataset = require(cells, columns, "fig07")
    own = cells[(cells["metric"] == "kid") & (cells["attribute"] == "overall")]
    own = own[(own["baseline"] != "") & (own["features"] == own["features"].iloc[0])]
    foot = (
        "Left: change in overall KID from Stable Diffusion (95% interval over seeds), the seeds, "
        "and the variance of the weights that the setting amounts to; empty cells were not run. "
        "Colours end at the smallest effect of interest. Right: a mark per run; weights of "
        f"variance 0 would be Stable Diffusion. n = {int(own['n'].max())} test subjects."
    )
    looks = [arm_look(name) for name in dict.fromkeys(doses["method"].str.split(" ").str[0])]
    fig = page(3.7, f"Does the optimiser's setting matter? {dataset_name(dataset)}", foot, notes)
    with matplotlib.rc_context(STYLE):
        grid = fig.add_gridspec(2, 3, width_ratios=[1.5, 1, 1], height_ratios=[1, 0.13])
        left, middle, right = (fig.add_subplot(grid[0, at]) for at in range(3))
        _heat_map(left, own)
        for ax, metric in ((middle, "kid"), (right, "kid_disparity")):
            _dose(ax, doses[doses["metric"] == metric], SHOWN[metric])
        below = fig.add_subplot(grid[1, :])  # a row of its own: the foot stands under it
        below.axis("off")
        below.legend(handles=_points(looks), loc="center", ncols=4, fontsize=6.5)
    return fig


def _points(looks: Sequence[Look]) -> list[matplotlib.lines.Line2D]:
    marks = handles(looks)
    for mark in marks:
        mark.set_linestyle("none")
    return marks


def _heat_map(ax: Axes, table: pd.DataFrame) -> None:
    """Changes by window (columns) and rate (rows)."""
    grid = table.pivot(index="exploitation_rate", columns="time_window", values="value")
    values = grid.to_numpy(dtype=float)
    most = float(np.nanmax([*np.abs(values).ravel(), table["smallest_effect"].max()])) or 1.0
    ax.imshow(values, cmap="PuOr", vmin=-most, vmax=most, aspect="auto", origin="lower", alpha=0.5)
    for _, row in table.iterrows():
        x = list(grid.columns).index(row["time_window"])
        y = list(grid.index).index(row["exploitation_rate"])
        text = (
            f"{row['value']:+.4f}\n({row['low']:+.4f} to\n{row['high']:+.4f})\n"
            f"seeds {row['seeds']}\nvariance {row['noise_variance']:.2f}"
        )
        ax.text(x, y, text, ha="center", va="center", fontsize=5.8)
    ax.set_xticks(range(len(grid.columns)), [f"{w:g}" for w in grid.columns])
    ax.set_yticks(range(len(grid.index)), [f"{r:g}" for r in grid.index])
    ax.set_xlabel("time window (steps)")
    ax.set_ylabel("exploitation rate")
    ax.tick_params(length=0)


def _dose(ax: Axes, table: pd.DataFrame, label: str) -> None:
    """A mark per run over the variance of its weights."""
    for name, own in table.groupby("method", sort=False):
        look = arm_look(str(name))
        ax.plot(own["noise_variance"], own["value"], look.marker, color=look.colour, ms=4.2,
                mec="white", mew=0.4)  # fmt: skip
    ax.axhline(0, color="#bbbbbb", lw=0.6, zorder=0)
    ax.set_xlabel("variance of the weights")
    ax.set_ylabel(label, fontsize=7)
    ax.ticklabel_format(axis="y", style="sci", scilimits=(-3, 3), useMathText=True)


# -- all arms --------------------------------------------------------------------------------


def fig_methods(table: pd.DataFrame, roles: dict[str, str], notes: Sequence[str] = ()) -> Figure:
    """Every arm minus Stable Diffusion: overall KID and the differences between levels.

    Parameters
    ----------
    table : DataFrame
        T13 of one dataset.
    roles : dict
        Arm to role, in the order of the page.
    notes : sequence of str
        Warnings to print on the page.
    """
    dataset = require(table, ("dataset", "method", "baseline", "metric", "seeds"), "fig_methods")
    own = table[(table["baseline"] == "none") & (table["attribute"] == "overall")]
    first = table.loc[table["metric"] == "kid", "features"].iloc[0]
    own = own[own["features"].isin([first, ""])]
    lines = _lines(own, roles)
    foot = (
        "Arm minus Stable Diffusion, paired by training seed, left of zero is better; bar: 95% "
        "interval over seeds, for these patients. Grey: smaller than the smallest effect of "
        "interest (none was declared for the loss). On the right: number of seeds."
    )
    fig = page(
        1.1 + ROW * len(lines), f"Does any method help? {dataset_name(dataset)}", foot, notes
    )
    with matplotlib.rc_context(STYLE):
        axes = fig.subplots(1, len(SHOWN), sharey=True)
        for ax, (metric, label) in zip(axes, SHOWN.items(), strict=True):
            _forest(ax, own[own["metric"] == metric], lines, label)
        axes[0].set_yticks(range(len(lines)), [text for text, _ in lines])
        for text, (_, arm) in zip(axes[0].get_yticklabels(), lines, strict=True):
            text.set_fontweight("bold" if arm is None else "normal")
            text.set_fontsize(7)
        _count_seeds(axes[-1], own, lines)
    return fig


def _lines(own: pd.DataFrame, roles: dict[str, str]) -> list[tuple[str, str | None]]:
    """(label, arm) of every line; a heading has no arm."""
    present, lines = set(own["method"]), list[tuple[str, str | None]]()
    for role, heading in ROLES.items():
        names = [name for name, its in roles.items() if its == role and name in present]
        if names:
            lines += [(heading, None), *((arm_look(name).label, name) for name in names)]
    return lines


def _forest(
    ax: Axes, table: pd.DataFrame, lines: Sequence[tuple[str, str | None]], label: str
) -> None:
    size = float(table["smallest_effect"].max()) if len(table) else float("nan")
    if np.isfinite(size):
        ax.axvspan(-size, size, color=GREY, lw=0, zorder=0)
    for at, (_, arm) in enumerate(lines):
        for _, row in table[table["method"] == arm].iterrows():
            whisker(ax, row, at, arm_look(str(arm)), across=True)
    ax.axvline(0, color="#999999", lw=0.6, zorder=1)
    ax.set_ylim(len(lines) - 0.5, -0.5)
    ax.set_title(label, fontsize=7.5)  # above: the axis' power of ten stands below
    ax.ticklabel_format(axis="x", style="sci", scilimits=(-3, 3), useMathText=True)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=6.5)


def _count_seeds(ax: Axes, own: pd.DataFrame, lines: Sequence[tuple[str, str | None]]) -> None:
    seeds = own.drop_duplicates("method").set_index("method")["seeds"].astype(str)
    for at, (_, arm) in enumerate(lines):
        if arm is not None:
            ax.text(1.02, at, f"{seeds[arm].count(',') + 1}", fontsize=6.5, va="center",
                    color=MUTED, transform=ax.get_yaxis_transform())  # fmt: skip
