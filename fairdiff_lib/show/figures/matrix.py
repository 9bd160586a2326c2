"""Notebooks 13 to 15: learning curves over real patients; memory; guidance and sampler steps."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fairdiff_lib.audit.memory import ALARMED, AUC, FOUND, NEARER, NO_SIGNAL
from fairdiff_lib.audit.seeds import means_and_seeds
from fairdiff_lib.settings.names import (
    NOT_ESTIMABLE,
    axis_name,
    classifier_name,
    name_of,
    space_title,
)
from fairdiff_lib.show.front import Nothing, figure
from fairdiff_lib.show.panels import (
    Rows,
    attributes_of,
    beside,
    counted_looks,
    forest,
    heat,
    in_order,
    interval_text,
    level_paths,
    level_rows,
    none_here,
    of_level,
    panel_legend,
    require,
    seeds,
    whisker,
)
from fairdiff_lib.show.style import (
    Look,
    dataset_name,
    is_simulated,
    look_of,
    ordered_methods,
    page,
)

AXES = {"guidance": "guidance scale", "steps": "denoising steps"}
APART = 1.07  # between two arms at the same share, x
NONE = 2.0  # arms without real images stand at the smallest share divided by this


@figure("fig_matrix")
def fig_matrix(table: Rows, *, condition: str, attribute: str, notes: Sequence[str] = ()) -> Figure:
    """AUC against the share of real training subjects: overall, and by level of an attribute.

    Of a condition; the attribute is the one that images were balanced over.
    """
    columns = ("method", "share", "seeds", "classifier", "condition", "attribute", "level")
    wanted = ("dataset", *columns, "metric", "n", "value", "low", "high")
    dataset = require(table, wanted, "fig_matrix")
    chosen = table[(table["condition"] == condition) & (table["metric"] == "auc")]
    chosen = chosen[chosen["attribute"].isin(["overall", attribute])]
    if attribute not in set(chosen["attribute"]):
        raise Nothing(f"fig_matrix: the table has no AUC of {condition!r} by {attribute!r}")
    shown, single = means_and_seeds(chosen, ["method", "share"])
    keys, arms = level_rows(shown), ordered_methods(shown["method"])
    classifier = classifier_name(str(shown["classifier"].iloc[0]))
    real = "" if is_simulated(dataset) else "real "
    foot = (
        f"{classifier}, equally many optimiser steps in every run. Shares are of {real}training "
        "patients; the generator saw all of them. Dotted: without real images. "
        f"Balanced: each level of {name_of(attribute).lower()} equally often. "
        "Tested on real images; in brackets: patients (fewest). "
        f"{interval_text(shown, seeds_drawn=True)}"
    )
    title = f"What do generated images add? {name_of(condition)}, {dataset_name(dataset)}"
    rows = -(-len(keys) // 4)
    fig = page(1.0 + 2.1 * rows, title, foot, notes, [look_of(arm) for arm in arms])
    axes = fig.subplots(rows, min(4, len(keys)), squeeze=False, sharex=True, sharey=True)
    for ax, (name, level) in zip(axes.flat, keys, strict=False):
        own = of_level(shown, name, level)
        _curves(ax, own, of_level(single, name, level), arms)
        ax.set_title(f"{'All' if name == 'overall' else level} ({own['n'].min()})", loc="left")
    for ax in axes.flat[len(keys) :]:
        ax.set_visible(False)
    for ax in axes[:, 0]:
        ax.set_ylabel(axis_name("auc"))
    for ax in axes[-1]:
        ax.set_xlabel(f"share of {real}training patients", fontsize=7)
    return fig


def _curves(ax: Axes, table: Rows, single: Rows, arms: Sequence[str]) -> None:
    """A line per arm with real images, a level line per arm without; seeds as small dots."""
    shares = sorted(share for share in set(table["share"]) if share > 0)
    start = min(shares) / NONE
    curves = [arm for arm in arms if (table.loc[table["method"] == arm, "share"] > 0).any()]
    if not np.isfinite(table["value"]).any():
        none_here(ax, "not estimable")
    for arm in arms:
        own, look = table[table["method"] == arm].sort_values("share"), look_of(arm)
        group = curves if arm in curves else [x for x in arms if x not in curves]
        aside = APART ** (group.index(arm) - (len(group) - 1) / 2)
        places = own["share"].replace(0.0, start) * aside
        if arm in curves:
            ax.plot(places, own["value"], color=look.colour, lw=1.0, alpha=0.8, zorder=1)
        elif np.isfinite(own["value"]).all():
            ax.axhline(own["value"].iloc[0], color=look.colour, lw=0.9, ls=":", zorder=0)
        for place, (_, row) in zip(places, own.iterrows(), strict=True):
            whisker(ax, row, float(place), look)
            each = single[(single["method"] == arm) & (single["share"] == row["share"])]
            seeds(ax, each, float(place), look)
    ax.set_xscale("log")
    ticks = [start, *shares]
    ax.set_xticks(ticks, ["none", *(f"{100 * share:g}%" for share in shares)])
    ax.set_xticks([], minor=True)
    ax.set_xlim(start / 1.35, 1.35)
    ax.grid(axis="y")


# -- guidance and steps -----------------------------------------------------------------------


@figure("fig_sweep")
def fig_sweep(
    table: Rows, *, guidance: float, steps: int, features: str, notes: Sequence[str] = ()
) -> Figure:
    """KID of every cell: a heat map overall, and lines by level through the study's own cell.

    The own cell (``guidance``, ``steps``) is framed, and the lines cross there, in one feature
    space.
    """
    columns = ("method", "guidance", "steps", "attribute", "level", "metric", "features")
    dataset = require(table, ("dataset", *columns, "n", "value", "low", "high"), "fig_sweep")
    kid, own = table[table["metric"] == "kid"], {"guidance": guidance, "steps": steps}
    shown = kid[kid["features"] == features]
    if not ((shown["guidance"] == guidance) & (shown["steps"] == steps)).any():
        cell = f"guidance {guidance:g}, {steps} steps"
        raise Nothing(f"fig_sweep: the table has no KID at {cell}, features {features!r}")
    names = attributes_of(shown)
    foot = (
        f"{look_of(str(shown['method'].iloc[0])).label}, one trained model; the same prompts and "
        "initial noise in every cell. Frame: the study's own cell; darker: worse within a map. The "
        f"lines, in {space_title(features)} features, pass through it. KID (Kernel Inception "
        "Distance), lower is better, with 95% interval over subjects; rare levels are drawn more "
        "often than they occur. In brackets: subjects. Overlapping intervals are no test: the "
        "paired changes are."
    )
    maps = kid[kid["attribute"] == "overall"]
    tall = 0.75 + 0.42 * maps["guidance"].nunique()
    fig = page(tall + 4.4, f"Guidance and steps, by group: {dataset_name(dataset)}", foot, notes)
    parts: Any = fig.subfigures(2, 1, height_ratios=[tall, 3.4])
    spaces = in_order(maps, "features")
    for ax, space in zip(parts[0].subplots(1, len(spaces), squeeze=False)[0], spaces,
                         strict=True):  # fmt: skip
        _map(ax, maps[maps["features"] == space], own)
        many = int(maps.loc[maps["features"] == space, "n"].max())
        ax.set_title(f"KID of all ({many}), {space_title(space)} features", loc="left")
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
            looks = counted_looks(shown[shown["attribute"] == name])
            places = sorted(set(cut[along]))
            level_paths(ax, cut[cut["attribute"] == name], along, places, looks)
            ax.set_xticks(range(len(places)), [f"{x:g}" for x in places])
            ax.set_xlabel(AXES[along])
        row[0].set_ylabel(f"KID\n{AXES[other]}: {own[other]:g}")
    for ax, name in zip(axes[0], names, strict=True):
        ax.set_title(name_of(name), loc="left")
        panel_legend(ax, list(counted_looks(shown[shown["attribute"] == name]).values()))


# -- notebook 14 ---------------------------------------------------------------------------------
HEIGHT = 0.27  # inches that a level takes


@figure("fig_privacy")
def fig_privacy(table: Rows, *, false_positives: float, notes: Sequence[str] = ()) -> Figure:
    """Both audits by level, a panel per number, with what no memory would give.

    ``false_positives``: that membership inference's threshold was set for.
    """
    columns = ("method", "seeds", "attribute", "level", "metric", "features", "n", "value")
    dataset = require(table, ("dataset", *columns, "low", "high"), "fig_privacy")
    shown, _ = means_and_seeds(table, ["method"])
    near = shown[shown["metric"] == NEARER]
    if near.empty:
        raise Nothing(f"fig_privacy: the table has no rows of {NEARER!r}")
    found = f"Members found, at\n{100 * false_positives:g}% false alarms"
    panels = [
        *((f"Nearer to training\n{_narrow(space_title(name))}", near[near["features"] == name],
           NO_SIGNAL, "images") for name in in_order(near, "features")),
        ("Membership\nAUC", shown[shown["metric"] == AUC], 0.5, ""),
        (found, shown[shown["metric"] == FOUND], false_positives, "members"),
    ]  # fmt: skip
    rows = level_rows(shown)
    looks = {method: look_of(method) for method in ordered_methods(shown["method"])}
    foot = (
        "Dashed: nothing remembered. Upright bars: false alarms in the same group, which chance "
        "alone would find. Nearer to training: beside as many held-out patients, intervals over "
        "these references; real images: the test images themselves, a control. In brackets: test "
        f"prompts; the other panels rest on all real images. {interval_text(shown)}"
    )
    title = f"Are training images remembered? {dataset_name(dataset)}"
    fig = page(1.3 + HEIGHT * len(rows), title, foot, notes, list(looks.values()))
    axes = fig.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for ax, (words, own, chance, counted) in zip(axes, panels, strict=True):
        forest(ax, own, rows, looks, null=chance)
        ax.set_title(words, loc="left")
        ax.set_xlabel(f"share of {counted}" if counted else "AUC", fontsize=7)
        ax.locator_params(axis="x", nbins=3)  # numbers that don't touch
    _alarms(axes[-1], shown[shown["metric"] == ALARMED], rows, looks)
    counts = [of_level(near, *key)["n"].min() for key in rows]
    names = ["All" if attribute == "overall" else level for attribute, level in rows]
    pairs = zip(names, np.nan_to_num(counts), strict=True)
    axes[0].set_yticks(range(len(rows)), [f"{name} ({n:.0f})" for name, n in pairs])
    return fig


def _narrow(words: str) -> str:
    """Words broken so that they fit above one panel of four."""
    return "\n".join(textwrap.wrap(words, 20, break_long_words=False, break_on_hyphens=False))


def _alarms(
    ax: Axes, own: Rows, rows: Sequence[tuple[str, str]], looks: Mapping[str, Look]
) -> None:
    """The level's own false-positive rate, as an upright bar."""
    for at, key in enumerate(rows):
        for i, (method, look) in enumerate(looks.items()):
            value = of_level(own[own["method"] == method], *key)["value"]
            place = [at + beside(len(looks), i)] * len(value)
            ax.plot(value, place, "|", color=look.colour, ms=7, mew=1.4, alpha=0.7, zorder=1)
    ax.set_xlim(left=-0.005)
