"""Notebook 13: learning curves over the share of real training patients."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fairdiff_lib.audit.seeds import means_and_seeds
from fairdiff_lib.settings.names import axis_name, classifier_name, name_of
from fairdiff_lib.show.front import Nothing, figure
from fairdiff_lib.show.panels import (
    Rows,
    interval_text,
    level_rows,
    none_here,
    of_level,
    require,
    seeds,
    whisker,
)
from fairdiff_lib.show.style import STYLE, dataset_name, look_of, ordered_methods, page

APART = 1.07  # between two arms at the same share, x
NONE = 2.0  # arms without real images stand at the smallest share divided by this


@figure("fig_matrix")
def fig_matrix(table: Rows, *, condition: str, attribute: str, notes: Sequence[str] = ()) -> Figure:
    """AUC against the share of real training subjects: overall, and by level of an attribute.

    Parameters
    ----------
    table : DataFrame
        dataset, method (the arm), share (0: no real images), seeds, classifier, condition,
        attribute, level, metric, n, value, low, high, as ``studies.matrix`` makes.
    condition, attribute : str
        What is shown; the attribute is the one that images were balanced over.
    notes : sequence of str
        Warnings to print on the page.
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
    foot = (
        f"{classifier}, equally many optimiser steps in every run. Shares are of real training "
        "patients; the generator saw all of them. Dotted: without real images. "
        f"Balanced: each level of {name_of(attribute).lower()} equally often. "
        "Tested on real images; in brackets: patients (fewest). "
        f"{interval_text(shown, seeds_drawn=True)}"
    )
    title = f"What do generated images add? {name_of(condition)}, {dataset_name(dataset)}"
    rows = -(-len(keys) // 4)
    fig = page(1.0 + 2.1 * rows, title, foot, notes, [look_of(arm) for arm in arms])
    with matplotlib.rc_context(STYLE):
        axes = fig.subplots(rows, min(4, len(keys)), squeeze=False, sharex=True, sharey=True)
        for ax, (name, level) in zip(axes.flat, keys, strict=False):
            own = of_level(shown, name, level)
            _curves(ax, own, of_level(single, name, level), arms)
            ax.set_title(f"{'All' if name == 'overall' else level} ({own['n'].min()})", loc="left")
        for ax in axes.flat[len(keys) :]:
            ax.set_visible(False)
        for ax in axes[:, 0]:
            ax.set_ylabel(axis_name("auc"))
        axes[-1, 0].set_xlabel("share of the real training patients")
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
