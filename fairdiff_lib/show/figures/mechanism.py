"""Pictures of the mechanism: surrogate, batch gap, weights, gradients; dose and response."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fairdiff_lib.show.figures.main import level_rows
from fairdiff_lib.show.style import (
    LEVEL_COLOURS,
    METHODS,
    MUTED,
    STYLE,
    Look,
    dataset_name,
    name_of,
    page,
    panel_legend,
    require,
    whisker,
)

EXPLAINED = {  # quantity: words
    "explained_timesteps": "draw of timesteps",
    "explained_groups": "group effects",
    "explained_both": "both",
    "explained_absent": "absent levels",
}
PLAIN = Look("plain batch", "#4d4d4d", "s")
OUTCOMES = {
    "own_loss": Look("the level's own loss", "#0072b2", "o"),
    "overall_loss": Look("mean loss", "#56b4e9", "v"),
    "gap": Look("gap", "#d55e00", "D"),
}


def looks_of(labels: Sequence[str]) -> dict[str, Look]:
    """A look for each label: a method's own, or for an ablation's arm one of the level colours."""
    arms = [label for label in dict.fromkeys(labels) if label not in METHODS]
    own = {arm: Look(arm, LEVEL_COLOURS[i % 7], "o") for i, arm in enumerate(arms)}
    return {label: METHODS.get(label) or own[label] for label in dict.fromkeys(labels)}


def fig_mechanism(
    table: pd.DataFrame,
    slices: pd.DataFrame,
    cosines: pd.DataFrame,
    notes: Sequence[str] = (),
) -> Figure:
    """The mechanism on one page.

    Top: the surrogate along each level's sigma. Middle: its R^2 beside shuffled scores, what
    explains the batch gap, mean weights. Bottom: cosines of the levels' gradients, and what the
    perturbation leaves of a batch's.

    Parameters
    ----------
    table, slices, cosines : DataFrame
        As of ``mechanism_study.Mechanism``; of ``slices``, the first run is drawn.
    notes : sequence of str
        Warnings to print on the page.
    """
    dataset = require(table, ("dataset", "method", "quantity", "value", "low"), "fig_mechanism")
    title = f"What the perturbation does: {dataset_name(dataset)}"
    foot = (
        "Surrogate: mean score that the optimiser's process expects along one level's sigma, the "
        "others at their mean, with 95% band; dotted: the path's mean. R^2: grey spans the "
        "shuffles. Explained: squared correlation of the batch gap with that of a part's fitted "
        "values, 95% interval over batches. Cosines: each over other rows, the diagonal shows "
        "what the rows' noise leaves of 1."
    )
    told = [m for m in dict.fromkeys(table["method"]) if m in set(_perturbed(table))]
    looks = looks_of(told)
    fig = page(8.2 if len(slices) else 6.0, title, foot, notes, list(looks.values()))
    with matplotlib.rc_context(STYLE):
        rows = list(np.asarray(fig.subfigures(3 if len(slices) else 2, 1)).flat)
        if len(slices):
            _slice_row(rows[0], slices)
        left, middle, right = rows[-2].subplots(1, 3, width_ratios=[1.0, 1.1, 1.3])
        _fit_panel(left, table, looks)
        _explained_panel(middle, table)
        _level_panel(right, table, {"weight": looks}, "Mean weight by level", 1.0)
        left, right = rows[-1].subplots(1, 2, width_ratios=[1.25, 1.0])
        _cosine_panel(left, cosines)
        quantities = {
            "plain_level_cosine": {next(iter(looks), ""): PLAIN},
            "perturbed_level_cosine": looks,
        }
        _level_panel(right, table, quantities, "Batch gradient's cosine with each level's", 0.0)
        if looks:
            panel_legend(right, [PLAIN])
    return fig


def _perturbed(table: pd.DataFrame) -> list[str]:
    """Methods whose weights are not all 1, or that have a surrogate."""
    weights = table[(table["quantity"] == "weight") & (table["value"] != 1.0)]
    others = table[table["quantity"].isin(["surrogate_r2", "perturbed_cosine"])]
    return [*weights["method"], *others["method"]]


def _slice_row(sub: Any, slices: pd.DataFrame) -> None:
    """A panel per attribute, a line and band per level."""
    first = slices.iloc[0]
    own = slices[(slices["method"] == first["method"]) & (slices["seed"] == first["seed"])]
    attributes = list(dict.fromkeys(own["attribute"]))
    axes = sub.subplots(1, len(attributes), sharey=True, squeeze=False)[0]
    for ax, attribute in zip(axes, attributes, strict=True):
        part = own[own["attribute"] == attribute]
        levels = list(dict.fromkeys(part["level"]))
        looks = [Look(level, LEVEL_COLOURS[i % 7], "") for i, level in enumerate(levels)]
        for look in looks:
            line = part[part["level"] == look.label]
            ax.fill_between(line["sigma"], line["low"], line["high"], color=look.colour,
                            alpha=0.13, lw=0)  # fmt: skip
            ax.plot(line["sigma"], line["mean"], color=look.colour)
            ax.axvline(float(line["path_mean"].iloc[0]), color=look.colour, ls=":", lw=0.8)
        ax.set_xlabel("sigma of the level")
        ax.set_title(name_of(attribute), loc="left")
        panel_legend(ax, looks)
    label = looks_of([str(first["method"])])[str(first["method"])].label
    windows = "all windows" if first["window"] == "all" else f"window {first['window']}"
    axes[0].set_ylabel(f"surrogate's mean score\n({label}, seed {first['seed']}, {windows})")


def _fit_panel(ax: Axes, table: pd.DataFrame, looks: dict[str, Look]) -> None:
    """R^2 of each run with a surrogate, the span of its shuffles in grey."""
    own = table[table["quantity"] == "surrogate_r2"].reset_index(drop=True)
    chance = table[table["quantity"] == "surrogate_r2_shuffled"].set_index(["method", "seed"])
    for at, (_, row) in enumerate(own.iterrows()):
        key = (row["method"], row["seed"])
        if key in chance.index:
            ends = [float(chance.loc[key, side]) for side in ("low", "high")]
            ax.plot(ends, [at, at], color="#c8c8c8", lw=6, solid_capstyle="butt", zorder=1)
        whisker(ax, row, at, looks[row["method"]], across=True)
    ax.axvline(0, color="#bbbbbb", lw=0.6, zorder=0)
    ax.set_yticks(range(len(own)), [f"seed {seed}" for seed in own["seed"]])
    ax.set_ylim(max(len(own), 1) - 0.3, -0.7)
    ax.set_xlabel("R^2 of left-out windows")
    ax.set_title("Does sigma predict the score?", loc="left")
    _say_if_empty(ax, own)


def _explained_panel(ax: Axes, table: pd.DataFrame) -> None:
    """Shares of the batch gap's variance."""
    own = table[table["quantity"].isin(EXPLAINED)]
    for at, quantity in enumerate(EXPLAINED):
        for _, row in own[own["quantity"] == quantity].iterrows():
            whisker(ax, row, at, Look("", "#0072b2", "o"), across=True)
    ax.set_yticks(range(len(EXPLAINED)), list(EXPLAINED.values()))
    ax.set_ylim(len(EXPLAINED) - 0.5, -0.5)
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel("share of the gap's variance")
    ax.set_title("What explains a batch's gap?", loc="left")
    _say_if_empty(ax, own)


def _level_panel(
    ax: Axes,
    table: pd.DataFrame,
    quantities: dict[str, dict[str, Look]],
    title: str,
    middle: float,
) -> None:
    """Levels below each other, a dot with interval for each quantity, label and seed."""
    own = table[table["quantity"].isin(quantities)]
    rows = level_rows(own)
    series = [(q, label, look) for q, looks in quantities.items() for label, look in looks.items()]
    for i, (quantity, label, look) in enumerate(series):
        shift = 0.7 * ((i + 0.5) / len(series) - 0.5)
        part = own[(own["quantity"] == quantity) & (own["method"] == label)]
        for _, row in part.iterrows():
            at = rows.index((row["attribute"], row["level"]))
            whisker(ax, row, at + shift, look, across=True)
    ax.axvline(middle, color="#bbbbbb", lw=0.6, zorder=0)
    ax.set_yticks(range(len(rows)), ["All" if a == "overall" else b for a, b in rows])
    ax.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    ax.set_title(title, loc="left")
    _say_if_empty(ax, own)


def _cosine_panel(ax: Axes, cosines: pd.DataFrame) -> None:
    """Cosines of gradients as a square, the number in each field."""
    ax.set_title("Cosines of the levels' gradients", loc="left")
    if cosines.empty:
        _say_if_empty(ax, cosines)
        return
    rows = level_rows(cosines)
    keys = ["attribute", "level", "other_attribute", "other_level"]
    value = cosines.set_index(keys)["value"]
    square = np.array([[value[(*a, *b)] for b in rows] for a in rows])
    ax.imshow(square, cmap="PuOr", vmin=-1, vmax=1, aspect="auto")  # 0 is white
    for (i, j), number in np.ndenumerate(square):
        ax.text(j, i, f"{number:.2f}", ha="center", va="center", fontsize=6,
                color="white" if abs(number) > 0.7 else "black")  # fmt: skip
    names = ["All" if a == "overall" else b for a, b in rows]
    ax.set_yticks(range(len(rows)), names)
    ax.set_xticks(range(len(rows)), names, rotation=40, ha="right", rotation_mode="anchor")
    ax.tick_params(length=0, labelsize=6.5)


def _say_if_empty(ax: Axes, table: pd.DataFrame) -> None:
    if table.empty:
        ax.text(0.5, 0.5, "none measured", transform=ax.transAxes, ha="center", color=MUTED)


def fig_dose(effects: pd.DataFrame, notes: Sequence[str] = ()) -> Figure:
    """Effect of each level's sigma, from low to high, on its own loss, the mean loss and the gap.

    Parameters
    ----------
    effects : DataFrame
        As of ``dose.effects``.
    notes : sequence of str
        Warnings to print on the page.
    """
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
    with matplotlib.rc_context(STYLE):
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
