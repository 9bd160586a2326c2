"""Notebooks 03 and 06: the loss of a run, and the optimiser's path (F4)."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fairdiff_lib.settings.names import name_of
from fairdiff_lib.show.front import figure
from fairdiff_lib.show.panels import Rows, in_order, lines, panel_legend, require, stacked
from fairdiff_lib.show.style import (
    STYLE,
    dataset_name,
    level_looks,
    look_of,
    ordered_methods,
    page,
)

QUANTITIES = {  # of the whole batch: what a panel is called
    "acquisition": "Acquisition (upper confidence bound)",
    "objective": "Objective: minus the gap in loss",
    "loss": "Loss",
}


@figure("fig04")
def fig04(table: Rows, notes: Sequence[str] = ()) -> Figure:
    """The optimiser's path: sigma per level, acquisition value, loss gap and loss.

    Parameters
    ----------
    table : DataFrame
        Columns dataset, method, seed, step, quantity ("sigma", "acquisition",
        "objective", "loss"; others are not drawn), attribute, level, value, as
        ``read_history`` gives them; attribute "" is the whole batch.
    notes : sequence of str
        Warnings to print on the page.
    """
    columns = ("dataset", "method", "seed", "step", "quantity", "attribute", "level", "value")
    dataset = require(table, columns, "fig04")
    sigma = table[table["quantity"] == "sigma"]
    attributes, overall = in_order(sigma, "attribute"), table[table["attribute"] == ""]
    used = sorted(set(table["seed"]))
    foot = (
        "Step: optimiser step of the fine-tuning. Loss: unweighted denoising error, mean of the "
        "steps since the last mark. Gap: largest minus smallest level's loss, summed over "
        f"attributes. Training seed{'s' if len(used) > 1 else ''} {', '.join(map(str, used))}."
    )
    styles = dict(zip(ordered_methods(sigma["method"]), ("-", ":", "--", "-."), strict=False))
    if len(styles) > 1:
        kinds = {"-": "full", ":": "dotted", "--": "dashed", "-.": "dash-dotted"}
        said = (f"{kinds[style]} {look_of(m).label}" for m, style in styles.items())
        foot += f" Sigma: {', '.join(said)}."
    title = f"What the optimiser did: {dataset_name(dataset)}"
    fig = page(2.6 + 2.0 * bool(attributes), title, foot, notes)
    with matplotlib.rc_context(STYLE):
        grid = stacked(fig, 1 + bool(attributes))
        if attributes:
            axes = grid[0].subplots(1, len(attributes), sharey=True, squeeze=False)[0]
            for ax, attribute in zip(axes, attributes, strict=True):
                _sigma(ax, sigma[sigma["attribute"] == attribute], attribute, styles)
            axes[0].set_ylabel("sigma (0 = no noise)")
        looks = [look_of(method) for method in ordered_methods(table["method"])]
        for ax, (quantity, label) in zip(
            grid[-1].subplots(1, 3), QUANTITIES.items(), strict=True
        ):
            _path(ax, overall[overall["quantity"] == quantity], label)
            panel_legend(ax, looks if quantity == "loss" else [])
    return fig


@figure("loss", kept=False)
def loss_page(history: Rows) -> Figure:
    """The loss of one run against the step, a panel per stage (VAE, base U-Net, fine-tuning).

    Parameters
    ----------
    history : DataFrame
        dataset, method, seed, stage, step, quantity, attribute, level, value.
    """
    dataset = require(history, ("dataset", "method", "stage", "step", "value"), "loss page")
    whole = history[(history["quantity"] == "loss") & (history["attribute"] == "")]
    stages = in_order(whole, "stage")
    label = look_of(str(history["method"].iloc[0])).label
    fig = page(2.4, f"Training loss of {label}: {dataset_name(dataset)}", "Mean of the batches.")
    with matplotlib.rc_context(STYLE):
        axes = fig.subplots(1, max(len(stages), 1), squeeze=False)[0]
        for ax, stage in zip(axes, stages, strict=False):
            _path(ax, whole[whole["stage"] == stage], STAGES.get(stage, stage))
    return fig


STAGES = {"vae": "Autoencoder", "base": "U-Net of the base", "training": "Fine-tuning"}


def _sigma(ax: Axes, table: Rows, attribute: str, styles: dict[str, str]) -> None:
    """Sigma of every level of an attribute against the step: a colour per level."""
    looks = {look.label: look for look in level_looks(in_order(table, "level"))}
    for method, style in styles.items():
        lines(ax, table[table["method"] == method], "step", looks, lw=0.9, ls=style)
    ax.set_ylim(-0.02, 1.05)
    ax.set_xlabel("step")
    ax.set_title(name_of(attribute), loc="left")
    panel_legend(ax, list(looks.values()))


def _path(ax: Axes, table: Rows, label: str) -> None:
    """One quantity against the step, a colour per method and a line per seed."""
    points = table[np.isfinite(table["value"].astype(float))]
    looks = {method: look_of(method) for method in ordered_methods(points["method"])}
    few = len(points) <= 30 * max(len(looks), 1)
    marks = {"marker": "o", "markersize": 2.5} if few else {}
    lines(ax, points, "step", looks, column="method", lw=0.8, alpha=0.8, **marks)
    ax.set_xlabel("step")
    ax.set_title(label, loc="left")
