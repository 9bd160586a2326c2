"""Pictures of the mechanism: weights, one window of the optimiser, three questions, doses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from fairdiff_lib.settings.methods import METHODS
from fairdiff_lib.settings.names import name_of
from fairdiff_lib.show.front import figure
from fairdiff_lib.show.panels import (
    Rows,
    in_order,
    level_rows,
    lines,
    none_here,
    panel_legend,
    require,
    stacked,
    whisker,
)
from fairdiff_lib.show.style import (
    LEVEL_COLOURS,
    MUTED,
    Look,
    dataset_name,
    level_looks,
    look_of,
    ordered_methods,
    page,
)

EXPLAINED = {  # quantity: words
    "explained_timesteps": "draw of timesteps",
    "explained_groups": "group effects",
    "explained_both": "both",
    "explained_absent": "absent levels",
}
OUTCOMES = {
    "own_loss": Look("the level's own loss", "#0072b2", "o"),
    "overall_loss": Look("mean loss", "#56b4e9", "v"),
    "gap": Look("gap", "#d55e00", "D"),
}


def looks_of(labels: Sequence[str]) -> dict[str, Look]:
    """A look for each label: a method's own, or for an ablation's arm one of the level colours."""
    arms = [label for label in dict.fromkeys(labels) if label not in METHODS]
    own = {arm: Look(arm, LEVEL_COLOURS[i % 7], "o") for i, arm in enumerate(arms)}
    return {label: own.get(label) or look_of(label) for label in dict.fromkeys(labels)}


@figure("fig_weights")
def fig_weights(weights: pd.DataFrame, scales: Sequence[float] = (0.25, 0.5, 1.0)) -> Figure:
    """Twelve samples' weights, and how a weight is distributed at three noise scales."""
    foot = (
        "Left: loss weights of one batch's first samples, all noise scales 1, as at the start of "
        "the released method. A negative weight teaches the model to be worse at that image. "
        "Right: how a weight is distributed; its mean is 1 whatever the noise scale is."
    )
    fig = page(3.4, "Weights are noise around 1", foot)
    left, right = fig.subplots(1, 2, width_ratios=[1.25, 1.0])
    at = np.arange(len(weights))
    negative = (weights["weight"] < 0).to_numpy()
    left.hlines(at, 1.0, weights["weight"], color="#c8c8c8", lw=1.2)
    for chosen, colour, name in (
        (~negative, "#0072b2", "positive"),
        (negative, "#d55e00", "negative"),
    ):
        left.plot(weights["weight"][chosen], at[chosen], "o", color=colour, ms=5, label=name)
    left.axvline(1.0, color=MUTED, lw=0.8)
    left.axvline(0.0, color="#bbbbbb", lw=0.8, ls=":")
    left.set_yticks(at, weights["sample"], fontsize=6.5)
    left.set(xlabel="weight of the sample's loss", ylim=(len(weights) - 0.4, -0.6))
    left.legend(fontsize=6.5, loc="upper left", framealpha=0.9, edgecolor="none")
    density_panel(right, scales)
    return fig


def density_panel(ax: Axes, scales: Sequence[float]) -> None:
    """How a weight under three attributes is distributed, a curve per noise scale."""
    grid = np.linspace(-6.0, 8.0, 400)
    for scale, colour in zip(scales, LEVEL_COLOURS, strict=False):
        spread = scale * np.sqrt(3.0)
        below = stats.norm.cdf(-1.0 / spread)
        label = f"noise scale {scale:g}: {below:.0%} negative"
        ax.plot(grid, stats.norm.pdf(grid, 1.0, spread), color=colour, label=label)
    room = 1.55  # for the legend, above all lines
    ax.axvline(1.0, ymax=1 / room, color=MUTED, lw=0.8)
    ax.axvline(0.0, ymax=1 / room, color="#bbbbbb", lw=0.8, ls=":")
    ax.set(xlabel="weight of a sample's loss", ylabel="density", ylim=(0, None))
    ax.legend(fontsize=6.5, frameon=False, loc="upper right")
    ax.set_ylim(0, room * ax.get_ylim()[1])


@figure("fig_surrogate")
def fig_surrogate(slices: pd.DataFrame, notes: Sequence[str] = ()) -> Figure:
    """The score that the optimiser expects along one level's sigma, a panel per attribute."""
    foot = (
        "Mean score that the Gaussian process expects along one level's noise scale, the others at "
        "their mean, with its band; dotted: the mean that was tried. Score: minus the loss gap, "
        "higher is fairer. A line that stays inside its band shows no preference."
    )
    attributes = list(dict.fromkeys(slices["attribute"]))
    fig = page(2.7, "What one window told the optimiser", foot, notes)
    axes = fig.subplots(1, len(attributes), sharey=True, squeeze=False)[0]
    for ax, attribute in zip(axes, attributes, strict=True):
        part = slices[slices["attribute"] == attribute]
        levels = list(dict.fromkeys(part["level"]))
        looks = [Look(level, LEVEL_COLOURS[i % 7], "") for i, level in enumerate(levels)]
        for look in looks:
            line = part[part["level"] == look.label]
            ax.fill_between(line["sigma"], line["low"], line["high"], color=look.colour,
                            alpha=0.13, lw=0)  # fmt: skip
            ax.plot(line["sigma"], line["mean"], color=look.colour)
            ax.axvline(float(line["path_mean"].iloc[0]), color=look.colour, ls=":", lw=0.8)
        ax.set_xlabel("noise scale of the level")
        ax.set_title(name_of(attribute), loc="left")
        panel_legend(ax, looks)
    axes[0].set_ylabel("expected score")
    return fig


@figure("fig_mechanism")
def fig_mechanism(table: pd.DataFrame, notes: Sequence[str] = ()) -> Figure:
    """Does sigma predict the score, what is the score made of, how long are the updates?"""
    dataset = require(table, ("dataset", "method", "quantity", "value", "low"), "fig_mechanism")
    foot = (
        "Left: share of the score's variance that the Gaussian process predicts in windows that it "
        "has not seen; grey: the same for shuffled scores. Middle: squared correlation of a "
        "batch's gap with that of a part's fitted values, with its interval over batches. Right: "
        "expected length of an optimiser's update beside Stable Diffusion's; 1 is the same."
    )
    methods = list(dict.fromkeys(table.loc[table["quantity"].isin(PANELS), "method"]))
    looks = looks_of([method for method in methods if method != "base"])
    title = f"What the perturbation does: {dataset_name(dataset)}"
    fig = page(3.0, title, foot, notes, list(looks.values()))
    left, middle, right = fig.subplots(1, 3, width_ratios=[1.0, 1.15, 1.0])
    _fit_panel(left, table, looks)
    explained_panel(middle, table)
    run_rows(right, table, "drift_ratio", looks, 1.0)
    right.set_xlabel("beside Stable Diffusion's")
    right.set_title("How long are the updates?", loc="left")
    return fig


PANELS = ("surrogate_r2", "drift_ratio")


def _fit_panel(ax: Axes, table: pd.DataFrame, looks: dict[str, Look]) -> None:
    """R^2 of each run with a surrogate, the span of its shuffles in grey."""
    chance = table[table["quantity"] == "surrogate_r2_shuffled"].set_index(["method", "seed"])
    for at, key in enumerate(run_rows(ax, table, "surrogate_r2", looks, 0.0)):
        if key in chance.index:
            ends = [float(chance.loc[key, side]) for side in ("low", "high")]
            ax.plot(ends, [at, at], color="#c8c8c8", lw=6, solid_capstyle="butt", zorder=1)
    ax.set_xlabel("share predicted (R\u00b2)")
    ax.locator_params(axis="x", nbins=3)  # numbers that don't touch
    ax.set_title("Does sigma predict the score?", loc="left")


def run_rows(
    ax: Axes, table: pd.DataFrame, quantity: str, looks: dict[str, Look], null: float
) -> list[Any]:
    """A whisker per run beside what means nothing; (method, seed) of the rows.

    Runs of several arms have no labels of their own: the axis says once which seeds an arm has.
    """
    own = table[table["quantity"] == quantity]
    by_arm = {str(arm): part for arm, part in own.groupby("method", sort=False)}
    own = pd.concat([own.iloc[:0], *by_arm.values()], ignore_index=True)
    for at, (_, row) in enumerate(own.iterrows()):
        whisker(ax, row, at, looks[row["method"]], across=True)
    ax.axvline(null, color="#bbbbbb", lw=0.6, zorder=0)
    several = len(by_arm) > 1
    ax.set_yticks(range(len(own)), ["" if several else f"seed {seed}" for seed in own["seed"]])
    if several:
        ax.set_ylabel(_seeds_of(list(by_arm.values())), fontsize=7)
        for at in np.cumsum([len(part) for part in by_arm.values()])[:-1]:
            ax.axhline(at - 0.5, color="#dddddd", lw=0.6, zorder=0)
    ax.set_ylim(max(len(own), 1) - 0.3, -0.7)
    if own.empty:
        none_here(ax, "none measured")
    return list(zip(own["method"], own["seed"], strict=True))


def _seeds_of(arms: Sequence[pd.DataFrame]) -> str:
    """Which seeds the rows of every arm are, from above."""
    named = {", ".join(str(seed) for seed in part["seed"]) for part in arms}
    return f"of each arm: seeds {named.pop()}" if len(named) == 1 else "of each arm: a row per seed"


def explained_panel(ax: Axes, table: pd.DataFrame) -> None:
    """Shares of the batch gap's variance; not of levels that no batch lacked."""
    own = table[table["quantity"].isin(EXPLAINED) & table["value"].notna()]
    shown = [quantity for quantity in EXPLAINED if (own["quantity"] == quantity).any()]
    for at, quantity in enumerate(shown):
        for _, row in own[own["quantity"] == quantity].iterrows():
            whisker(ax, row, at, Look("", "#0072b2", "o"), across=True)
    ax.set_yticks(range(len(shown)), [EXPLAINED[quantity] for quantity in shown])
    ax.set_ylim(max(len(shown), 1) - 0.5, -0.5)
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel("share of the gap's variance")
    ax.set_title("What explains a batch's gap?", loc="left")
    if own.empty:
        none_here(ax, "none measured")


@figure("fig_dose")
def fig_dose(effects: pd.DataFrame, notes: Sequence[str] = ()) -> Figure:
    """Effect of each level's sigma, low to high, on its own loss, the mean loss and the gap."""
    columns = ("dataset", "reweighting", "outcome", "attribute", "level", "n", "value")
    dataset = require(effects, (*columns, "low", "high"), "fig_dose")
    kinds, rows = list(dict.fromkeys(effects["reweighting"])), level_rows(effects)
    counts = ", ".join(str(n) for n in sorted(set(effects["n"])))
    foot = (
        "Change of the held-out value when that level's sigma goes from low to high, all else "
        f"equal; 95% intervals, not adjusted; {counts} cells per reweighting. A main effect can't "
        "be told from interactions of two other levels."
    )
    title = f"Does sigma move the loss? {dataset_name(dataset)}"
    fig = page(1.2 + 0.36 * len(rows), title, foot, notes, list(OUTCOMES.values()))
    axes = fig.subplots(1, len(kinds), sharex=True, sharey=True, squeeze=False)[0]
    for ax, kind in zip(axes, kinds, strict=True):
        for i, (outcome, look) in enumerate(OUTCOMES.items()):
            chosen = (effects["reweighting"] == kind) & (effects["outcome"] == outcome)
            for _, row in effects[chosen].iterrows():
                at = rows.index((row["attribute"], row["level"])) + 0.24 * (i - 1)
                whisker(ax, row, at, look, across=True)
        ax.axvline(0, color="#bbbbbb", lw=0.6, zorder=0)
        ax.set_title(f"Reweighting by {kind}", loc="left")
        ax.set_xlabel("change of the held-out value")
    axes[0].set_yticks(range(len(rows)), [level for _, level in rows])
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    return fig


QUANTITIES = {  # of the whole batch: what a panel is called
    "acquisition": "Acquisition (upper confidence bound)",
    "objective": "Objective: minus the gap in loss",
    "loss": "Loss",
}


@figure("fig04")
def fig04(table: Rows, notes: Sequence[str] = ()) -> Figure:
    """The optimiser's path: sigma per level, acquisition value, loss gap and loss."""
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
    grid = stacked(fig, 1 + bool(attributes))
    if attributes:
        axes = grid[0].subplots(1, len(attributes), sharey=True, squeeze=False)[0]
        for ax, attribute in zip(axes, attributes, strict=True):
            _sigma(ax, sigma[sigma["attribute"] == attribute], attribute, styles)
        axes[0].set_ylabel("sigma (0 = no noise)")
    looks = [look_of(method) for method in ordered_methods(table["method"])]
    for ax, (quantity, label) in zip(grid[-1].subplots(1, 3), QUANTITIES.items(), strict=True):
        _path(ax, overall[overall["quantity"] == quantity], label)
        panel_legend(ax, looks if quantity == "loss" else [])
    return fig


@figure("loss", kept=False)
def loss_page(history: Rows) -> Figure:
    """The loss of one run against the step, a panel per stage (VAE, base U-Net, fine-tuning)."""
    dataset = require(history, ("dataset", "method", "stage", "step", "value"), "loss page")
    whole = history[(history["quantity"] == "loss") & (history["attribute"] == "")]
    stages = in_order(whole, "stage")
    label = look_of(str(history["method"].iloc[0])).label
    fig = page(2.4, f"Training loss of {label}: {dataset_name(dataset)}", "Mean of the batches.")
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
