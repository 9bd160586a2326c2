"""Pictures of the downstream matrix: learning curves, and train on A, test on B."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.audit.seeds import means_and_seeds
from fairdiff_lib.show.panels import interval_text
from fairdiff_lib.settings.names import classifier_name, name_of
from fairdiff_lib.show.panels import require, whisker
from fairdiff_lib.show.style import MUTED, STYLE, dataset_name, look_of, ordered_methods, page

Rows = pd.DataFrame
HEAT = "#0072b2"  # of AUCs; its strength goes from none at 0.5 to full at 1
APART = 1.07  # between two arms at the same share, x
NONE = 2.0  # arms without real images stand at the smallest share divided by this


# -- learning curves -------------------------------------------------------------------------


def fig_matrix(table: Rows, *, condition: str, attribute: str, notes: Sequence[str] = ()) -> Figure:
    """AUC against the share of real training subjects: overall, and by level of an attribute.

    Parameters
    ----------
    table : DataFrame
        dataset, method (the arm), share (0: no real images), seeds, classifier, condition,
        attribute, level, metric, n, value, low, high, as ``matrix_study.collect_matrix`` makes.
    condition, attribute : str
        What is shown; the attribute is the one that images were balanced over.
    notes : sequence of str
        Warnings to print on the page.

    Raises
    ------
    InputError
        The table lacks a column, or the AUC of the condition and attribute.
    """
    columns = ("method", "share", "seeds", "classifier", "condition", "attribute", "level")
    dataset = require(
        table, ("dataset", *columns, "metric", "n", "value", "low", "high"), "fig_matrix"
    )
    chosen = table[(table["condition"] == condition) & (table["metric"] == "auc")]
    chosen = chosen[chosen["attribute"].isin(["overall", attribute])]
    if attribute not in set(chosen["attribute"]):
        raise InputError(f"fig_matrix: the table has no AUC of {condition!r} by {attribute!r}")
    shown, _ = means_and_seeds(chosen, ["method", "share"])
    keys = list(shown[["attribute", "level"]].drop_duplicates().itertuples(index=False, name=None))
    arms = ordered_methods(shown["method"])
    classifier = classifier_name(str(shown["classifier"].iloc[0]))
    foot = (
        f"{classifier}, as many optimiser steps in every run. Real training "
        "subjects are drawn, not validation subjects; the generator saw all of them. Dotted "
        "lines: without real images. "
        f"Balanced: each level of {name_of(attribute).lower()} equally often. "
        "Tested on real images; in brackets: subjects (fewest). "
        f"{interval_text(shown)}"
    )
    title = f"What do generated images add? {name_of(condition)}, {dataset_name(dataset)}"
    rows = -(-len(keys) // 4)
    fig = page(1.0 + 2.1 * rows, title, foot, notes, [look_of(arm) for arm in arms])
    with matplotlib.rc_context(STYLE):
        axes = fig.subplots(rows, min(4, len(keys)), squeeze=False, sharex=True, sharey=True)
        for ax, (name, level) in zip(axes.flat, keys, strict=False):
            own = shown[(shown["attribute"] == name) & (shown["level"] == level)]
            _curve_panel(ax, own, arms)
            ax.set_title(f"{'All' if name == 'overall' else level} ({own['n'].min()})", loc="left")
            ax.set_xlabel("real training subjects")
        for ax in axes.flat[len(keys) :]:
            ax.set_visible(False)
        for ax in axes[:, 0]:
            ax.set_ylabel(name_of("auc"))
    return fig


def _curve_panel(ax: Axes, table: Rows, arms: Sequence[str]) -> None:
    """A line per arm with real images, a level line per arm without."""
    shares = sorted(share for share in set(table["share"]) if share > 0)
    start = min(shares) / NONE
    curves = [arm for arm in arms if (table.loc[table["method"] == arm, "share"] > 0).any()]
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
    if not np.isfinite(table["value"]).any():
        ax.text(0.5, 0.5, "not estimable", transform=ax.transAxes, ha="center", color=MUTED)
    ax.set_xscale("log")
    ticks = [start, *shares]
    ax.set_xticks(ticks, ["none", *(f"{100 * share:g}%" for share in shares)])
    ax.set_xticks([], minor=True)
    ax.set_xlim(start / 1.35, 1.35)
    ax.grid(axis="y", color="#eeeeee", lw=0.6)
    ax.set_axisbelow(True)


# -- train on A, test on B -------------------------------------------------------------------


def fig_transfer(table: Rows, *, condition: str, notes: Sequence[str] = ()) -> Figure:
    """Overall AUC of every training source on every source's test images, a map per classifier.

    Parameters
    ----------
    table : DataFrame
        dataset, method (trained on), tested_on, seeds, classifier, condition, attribute, level,
        metric, n, value, low, high, as ``matrix_study.collect_transfer`` makes.
    condition : str
    notes : sequence of str
        Warnings to print on the page.
    """
    columns = ("method", "tested_on", "seeds", "classifier", "condition", "attribute", "metric")
    dataset = require(table, ("dataset", *columns, "n", "value", "low", "high"), "fig_transfer")
    chosen = table[(table["condition"] == condition) & (table["metric"] == "auc")]
    chosen = chosen[chosen["attribute"] == "overall"]
    if chosen.empty:
        raise InputError(f"fig_transfer: the table has no AUC of {condition!r}")
    shown, _ = means_and_seeds(chosen, ["method", "tested_on", "classifier"])
    sources = ordered_methods([*shown["method"], *shown["tested_on"]])
    names = list(dict.fromkeys(shown["classifier"]))
    interval = "over seeds" if shown["seeds"].astype(str).str.contains(",").any() else (
        "over subjects, of one training seed")  # fmt: skip
    foot = (
        f"AUC with its 95% interval {interval}; n = {shown['n'].min()} test subjects. Colour: "
        "from 0.5, chance, to 1. Of generated images the truth is what the prompt asked for: high "
        "on them and low on real ones is a sign that is drawn but not real."
    )
    title = f"Trained on one, tested on another: {name_of(condition)}, {dataset_name(dataset)}"
    fig = page(1.2 + 0.55 * len(sources), title, foot, notes)
    with matplotlib.rc_context(STYLE):
        axes = fig.subplots(1, len(names), squeeze=False, sharey=True)[0]
        for ax, name in zip(axes, names, strict=True):
            _heat_panel(ax, shown[shown["classifier"] == name], sources)
            ax.set_title(str(name), loc="left")
        axes[0].set_yticks(range(len(sources)), [look_of(x).label for x in sources])
        axes[0].set_ylabel("trained on")
    return fig


def _heat_panel(ax: Axes, table: Rows, sources: Sequence[str]) -> None:
    """A square per pair: its strength is the AUC."""
    for _, row in table.iterrows():
        at = sources.index(row["tested_on"]), sources.index(row["method"])
        value = float(row["value"])
        strength = float(np.clip(2 * value - 1, 0, 1)) if np.isfinite(value) else 0.0
        own: dict[str, Any] = {"fc": HEAT, "ec": "white", "alpha": 0.65 * strength, "lw": 0.8}
        ax.add_patch(matplotlib.patches.Rectangle((at[0] - 0.5, at[1] - 0.5), 1, 1, **own))
        ax.text(*at, _cell(row), ha="center", va="center", fontsize=7, linespacing=1.2)
    ax.set(xlim=(-0.5, len(sources) - 0.5), ylim=(len(sources) - 0.5, -0.5))
    ax.set_xticks(range(len(sources)), [look_of(x).label.replace(" ", "\n", 1) for x in sources])
    ax.set_xlabel("tested on")
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set(visible=True, color="#bbbbbb", lw=0.6)


def _cell(row: pd.Series[Any]) -> str:
    value, low, high = (float(row[name]) for name in ("value", "low", "high"))
    if not np.isfinite(value):
        return "not\nestimable"
    return f"{value:.2f}\n{low:.2f} to {high:.2f}" if np.isfinite(low) else f"{value:.2f}"
