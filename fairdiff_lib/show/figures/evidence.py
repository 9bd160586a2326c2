"""Notebooks 16 to 18: a changed word, wrong labels, generations of a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fairdiff_lib.audit.seeds import means_and_seeds
from fairdiff_lib.settings.names import name_of
from fairdiff_lib.show.figures.cohort import draw
from fairdiff_lib.show.front import Nothing, figure
from fairdiff_lib.show.panels import Rows, forest, interval_text, level_rows, require
from fairdiff_lib.show.style import MUTED, WIDTH, Look, dataset_name, look_of, ordered_methods, page

HEIGHT = 0.27  # inches that a level takes
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
    shown, _ = means_and_seeds(table, ["method"])
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
        ("all", "moved_blur"): ("Images move, as a blur of", "pixels"),
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
