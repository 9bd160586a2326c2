"""Notebooks 16 to 18: a changed word, wrong labels, generations of a model."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fairdiff_lib.audit.seeds import means_and_seeds
from fairdiff_lib.settings.names import AUDIT_ERRORS, LABEL_FAULTS, name_of
from fairdiff_lib.show.figures.cohort import draw
from fairdiff_lib.show.front import Nothing, figure
from fairdiff_lib.show.panels import (
    Rows,
    attributes_of,
    counted_looks,
    forest,
    in_order,
    interval_text,
    level_paths,
    level_rows,
    name_missing,
    panel_legend,
    require,
)
from fairdiff_lib.show.style import (
    MUTED,
    WIDTH,
    Look,
    dataset_name,
    is_simulated,
    level_looks,
    look_of,
    ordered_methods,
    page,
)

HEIGHT = 0.27  # inches that a level takes
LEVEL = 0.05  # of every test
TRAINED_ON = {"mixed": "half of the images the\nlast generation's", "real": "real images alone"}
RENEWED = Look("another noise, same prompt", MUTED, "s")


@figure("pairs", kept=False)
def pairs(rows: dict[str, np.ndarray], *, title: str, foot: str = "") -> Figure:
    """Rows of images of the same noise below each other, each with its name."""
    count = max(len(images) for images in rows.values())
    side = (WIDTH - 1.1) / count
    fig = page(0.55 + (side + 0.03) * len(rows), title, foot)
    axes = fig.subplots(len(rows), count, squeeze=False)
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        for ax, image in zip(line, images, strict=False):
            draw(ax, image)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=7)
    return fig


@figure("fig_counterfactual")
def fig_counterfactual(table: Rows, *, condition: str, notes: Sequence[str] = ()) -> Figure:
    """How far a changed word moves images, and how often the finding flips, by level.

    Grey: what another noise does to the same prompts, by the first method.
    """
    columns = ("method", "seeds", "changed", "condition", "attribute", "level", "metric", "n")
    dataset = require(table, ("dataset", *columns, "value", "low", "high"), "fig_counterfactual")
    shown = means_and_seeds(table, ["method"])[0]
    shown = shown[shown["attribute"] != "overall"]
    methods = ordered_methods(shown["method"])
    word, noise = shown[shown["changed"] != "noise"], shown[shown["changed"] == "noise"]
    both = [word.assign(arm=word["method"]), noise[noise["method"] == methods[0]].assign(arm="")]
    cells, rows = pd.concat(both, ignore_index=True), level_rows(word)
    if not rows:
        raise Nothing("fig_counterfactual: the table has no change of a group's word")
    looks = {**{method: look_of(method) for method in methods}, "": RENEWED}
    foot = (
        "Same noise, same conditions; only the word for the level that is named is changed to "
        "another level's. Blur: that of the image itself which would move it as far (at most "
        f"4 pixels are tried). Findings are read by one classifier of real images. "
        f"{interval_text(shown)} In brackets: subjects."
    )
    title = f"One word changed: {dataset_name(dataset)}"
    fig = page(1.5 + HEIGHT * len(rows), title, foot, notes, list(looks.values()))
    panels = {
        ("all", "moved_blur"): ("Images move", "as a blur of so many pixels"),
        (condition, "finding_flips"): (f"{name_of(condition)}: finding flips", "share of images"),
        (condition, "readout_change"): (f"{name_of(condition)}: read-out", "change in probability"),
    }
    axes = fig.subplots(1, len(panels), squeeze=False)[0]
    for ax, (key, (words, unit)) in zip(axes, panels.items(), strict=True):
        own = cells[(cells["condition"] == key[0]) & (cells["metric"] == key[1])]
        forest(ax, own, rows, looks, column="arm")
        if ax is not axes[0]:
            ax.tick_params(labelleft=False)
        ax.set_title(words, loc="left")
        ax.set_xlabel(unit, fontsize=7)
        ax.locator_params(axis="x", nbins=4)
    return fig


@figure("fig_stress")
def fig_stress(table: Rows, *, pixels: float, ratio: float) -> Figure:
    """False alarms and misses against the share of labels that are spoilt, a panel per fault."""
    columns = ("layer", "truth", "fault", "share", "simulations", "event", "value", "low", "high")
    dataset = require(table, ("dataset", *columns), "fig_stress")
    looks = dict(zip(AUDIT_ERRORS.values(), level_looks(tuple(AUDIT_ERRORS.values())), strict=True))
    layers, faults = in_order(table, "layer"), list(LABEL_FAULTS)
    whose = "Simulated" if is_simulated(dataset) else "Real"
    told = {
        "features": f"Simulated features\n(KID {ratio:g} times, or equal)",
        "images": f"{whose} images, blurred\n({pixels:g} pixels more, or equal)",
    }
    smaller = table.groupby("layer", sort=False)["n"].min()
    sizes = " and ".join(dict.fromkeys(f"{int(n):,}" for n in smaller))
    counts = ", ".join(f"{n:,}" for n in table.groupby("layer", sort=False)["simulations"].min())
    foot = (
        "Missed: the group that is worse was not called worse. Dashed: what is promised of false "
        f"alarms, 5%. Exact 95% intervals over audits ({counts} per point). Subjects of the "
        f"smaller group: {sizes}. The adversary exchanges labels so as to hide a difference, or to "
        "feign one; both groups keep their size."
    )
    title = f"How soon do wrong group labels mislead an audit? {dataset_name(dataset)}"
    fig = page(1.4 + 1.5 * len(layers), title, foot, (), list(looks.values()))
    axes = fig.subplots(len(layers), len(faults), squeeze=False, sharey=True, sharex=True)
    for line, layer in zip(axes, layers, strict=True):
        for ax, fault in zip(line, faults, strict=True):
            own = table[(table["layer"] == layer) & table["fault"].isin(["", fault])]
            places = sorted(set(own["share"]))
            level_paths(ax, own.assign(level=own["event"]), "share", places, looks)
            ax.axhline(LEVEL, color=MUTED, lw=0.8, ls=(0, (4, 3)), zorder=0)
            ax.set_xticks(range(len(places)), [f"{100 * x:g}%" for x in places])
        line[0].set_ylabel(told[layer], fontsize=7)
    for ax, fault in zip(axes[0], faults, strict=True):
        ax.set_title("\n".join(textwrap.wrap(LABEL_FAULTS[fault], 24)), loc="left", fontsize=7.5)
    for ax in axes[-1]:
        ax.set_xlabel("labels spoilt", fontsize=7)
    axes[0][0].set_ylim(-0.02, 1.02)
    return fig


@figure("fig_loop")
def fig_loop(table: Rows, *, notes: Sequence[str] = ()) -> Figure:
    """Equivalent blur of every generation by level: trained on each other's images, or on real."""
    columns = ("arm", "generation", "seeds", "attribute", "level", "metric", "n", "value")
    dataset = require(table, ("dataset", *columns, "low", "high"), "fig_loop")
    shown, _ = means_and_seeds(table[table["metric"] == "equivalent_blur"], ["arm"])
    names, arms = attributes_of(shown), in_order(shown, "arm")
    if shown.empty:
        raise Nothing("fig_loop: the table has no equivalent blur")
    foot = (
        "Generation 0 is the study's own model; each goes on from the one before, with as many "
        "steps. Equivalent blur: how far the group's own real images must be blurred to be as far "
        f"off as generated ones; lower is better. {interval_text(shown)} In brackets: subjects."
    )
    title = f"Models trained on each other's images: {dataset_name(dataset)}"
    fig = page(1.0 + 2.0 * len(arms), title, foot, notes)
    axes = fig.subplots(len(arms), len(names), squeeze=False, sharey=True)
    for line, arm in zip(axes, arms, strict=True):
        for ax, name in zip(line, names, strict=True):
            own = shown[(shown["arm"] == arm) & (shown["attribute"] == name)]
            looks, places = counted_looks(own), sorted(set(own["generation"]))
            name_missing(ax, level_paths(ax, own, "generation", places, looks))
            ax.set_xticks(range(len(places)), [str(x) for x in places])
            ax.set_title(name_of(name), loc="left")
            panel_legend(ax, list(looks.values()))
        line[0].set_ylabel(f"{TRAINED_ON[arm]}\n\nequivalent blur, pixels", fontsize=7)
    for ax in axes[-1]:
        ax.set_xlabel("generation", fontsize=7)
    return fig
