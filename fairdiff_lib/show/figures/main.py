"""Tidy tables to figures. Nothing is computed here.

The interval and the number of subjects stand on the page, and the word
"simulated" wherever the data are. Image grids are in :mod:`fairdiff_lib.show.figures.images`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fairdiff_lib.audit.seeds import means_and_seeds
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.show.style import (
    LEVEL_COLOURS,
    MUTED,
    SPLITS,
    STYLE,
    Look,
    classifier_name,
    dataset_name,
    look_of,
    name_of,
    ordered_methods,
    page,
    panel_legend,
    require,
    whisker,
)


def level_rows(table: pd.DataFrame) -> list[tuple[str, str]]:
    """(attribute, level) pairs in the table's own order."""
    pairs = table[["attribute", "level"]].drop_duplicates()
    return list(pairs.itertuples(index=False, name=None))


def stacked(fig: Figure, rows: int) -> list[Any]:
    """Rows of panels, each with its own columns."""
    return [fig.subfigures(1, 1)] if rows == 1 else list(np.asarray(fig.subfigures(rows, 1)))


_SIDE_BY_SIDE = 4  # conditions that a page has room for


def fig01(table: pd.DataFrame, notes: Sequence[str] = ()) -> Figure:
    """Cohort: subjects by level and split, and prevalence of every condition.

    Parameters
    ----------
    table : DataFrame
        Columns dataset, split, attribute, level, condition, condition_level,
        metric ("count" or "prevalence"), n, value, low, high. Rows of split
        "all" hold the prevalence over the three splits together.
    notes : sequence of str
        Warnings to print on the page.
    """
    columns = ("split", "attribute", "level", "condition", "condition_level", "metric", "value")
    dataset = require(table, ("dataset", *columns, "low", "high"), "fig01")
    shares = table[table["metric"] == "prevalence"]
    conditions = list(dict.fromkeys(shares["condition"]))
    rows = level_rows(table)
    foot = "Bars: subjects. Dots: share of subjects, with 95% interval (Wilson)."
    rest = [conditions[i : i + _SIDE_BY_SIDE] for i in range(1, len(conditions), _SIDE_BY_SIDE)]
    height = 1.5 + 0.2 * len(rows) * (1 + len(rest)) + 0.5 * len(rest)
    fig = page(height, f"Who is in the cohort? {dataset_name(dataset)}", foot, notes)
    with matplotlib.rc_context(STYLE):
        parts = stacked(fig, 1 + len(rest))
        axes = parts[0].subplots(1, 2)
        _counts(axes[0], table[table["metric"] == "count"], rows)
        _shares_by_split(axes[1], shares[shares["condition"] == conditions[0]], rows)
        for sub, line in zip(parts[1:], rest, strict=True):
            below = sub.subplots(1, len(rest[0]), squeeze=False)[0]
            for ax, condition in zip(below, line, strict=False):
                part = shares[(shares["condition"] == condition) & (shares["split"] == "all")]
                _shares_by_level(ax, part, rows, condition)
            for ax in below[len(line) :]:
                ax.remove()
        for sub in parts:
            _name_levels(sub.axes, rows)
    return fig


def _name_levels(axes: Sequence[Axes], rows: Sequence[tuple[str, str]]) -> None:
    """Level names down the first panel, thin lines between the attributes in all."""
    labels = ["All" if a == "overall" else level for a, level in rows]
    breaks = [i - 0.5 for i in range(1, len(rows)) if rows[i][0] != rows[i - 1][0]]
    for i, ax in enumerate(axes):
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.set_yticks(range(len(rows)), labels if i == 0 else [""] * len(rows))
        ax.tick_params(axis="y", length=0)
        for at in breaks:
            ax.axhline(at, color="#dddddd", lw=0.6, zorder=0)


def _select(table: pd.DataFrame, attribute: str, level: str) -> pd.DataFrame:
    return table[(table["attribute"] == attribute) & (table["level"] == level)]


def _counts(ax: Axes, table: pd.DataFrame, rows: Sequence[tuple[str, str]]) -> None:
    """Stacked bars of subjects, a shade per split, the three counts written at the end."""
    shades = {"train": "#4d4d4d", "val": "#cc79a7", "test": "#0072b2"}
    longest = 0.0
    for at, (attribute, level) in enumerate(rows):
        part = _select(table, attribute, level)
        values = dict(zip(part["split"], part["value"], strict=True))
        left = 0.0
        counts: list[str] = []
        for split, shade in shades.items():
            value = float(values.get(split, 0.0))
            ax.barh(at, value, left=left, color=shade, height=0.62)
            left += value
            counts.append(f"{value:,.0f}")
        ax.text(left, at, "  " + " | ".join(counts), va="center", fontsize=6.5)
        longest = max(longest, left)
    ax.set_xlim(0, longest * 1.45)
    ax.set_xlabel("subjects: training | validation | test")
    ax.set_title("Size", loc="left")


def _shares_by_split(ax: Axes, table: pd.DataFrame, rows: Sequence[tuple[str, str]]) -> None:
    """Prevalence of the first condition's last level, a dot per split."""
    wanted = list(dict.fromkeys(table["condition_level"]))[-1]
    part = table[table["condition_level"] == wanted]
    for at, (attribute, level) in enumerate(rows):
        for _, row in _select(part, attribute, level).iterrows():
            if row["split"] in SPLITS:
                shift = 0.22 * (list(SPLITS).index(row["split"]) - 1)
                whisker(ax, row, at + shift, SPLITS[row["split"]], across=True)
    ax.set_xlim(0, 1)
    ax.set_xlabel(f"share with {wanted}")
    ax.set_title(name_of(str(table["condition"].iloc[0])), loc="left")
    panel_legend(ax, list(SPLITS.values()))


def _shares_by_level(
    ax: Axes, table: pd.DataFrame, rows: Sequence[tuple[str, str]], condition: str
) -> None:
    """Share of every level of a condition, a colour per level."""
    levels = list(dict.fromkeys(table["condition_level"]))
    looks = [Look(level, LEVEL_COLOURS[i % 7], "o") for i, level in enumerate(levels)]
    step = 0.7 / max(len(levels), 1)
    for at, (attribute, level) in enumerate(rows):
        for _, row in _select(table, attribute, level).iterrows():
            i = levels.index(row["condition_level"])
            shift = step * (i - (len(levels) - 1) / 2)
            whisker(ax, row, at + shift, looks[i], across=True)
    ax.set_xlim(0, 1)
    ax.set_xlabel("share of subjects, all splits")
    ax.set_title(name_of(condition), loc="left")
    panel_legend(ax, looks)


def fig03(
    table: pd.DataFrame,
    *,
    metric: str = "kid",
    floor: str = "kid_floor",
    rows: Sequence[Sequence[str]] = (),
    notes: Sequence[str] = (),
) -> Figure:
    """Quality by group: a panel per attribute, methods side by side, n under each level.

    Parameters
    ----------
    table : DataFrame
        Columns dataset, method, seeds ("0", or "0,1,2" for a mean over seeds),
        attribute, level, metric, features, n, value, low, high. Where a method has a
        mean, it gets the dot and the single seeds are small dots beside it.
    metric : str
        Which metric of the table.
    floor : str
        Metric whose interval is shaded behind the dots, where the table has it.
    rows : sequence of sequences of str
        Attributes of each row of panels; empty = all in one row.
    notes : sequence of str
        Warnings to print on the page.
    """
    columns = ("dataset", "method", "seeds", "attribute", "level", "metric", "n", "value")
    dataset = require(table, (*columns, "low", "high"), "fig03")
    chosen = table[table["metric"] == metric]
    if chosen.empty:
        raise InputError(f"fig03: the table has no metric {metric!r}")
    part, seeds = means_and_seeds(chosen, ["method"])
    panels = [list(row) for row in rows] or [list(dict.fromkeys(part["attribute"]))]
    panels = [[a for a in row if a in set(part["attribute"])] for row in panels]
    panels = [row for row in panels if row]
    features = "" if "features" not in part else f" Features: {part['features'].iloc[0]}."
    single = ~table["seeds"].astype(str).str.contains(",")  # a mean has no width of its own
    noise = table[(table["metric"] == floor) & single]
    band = " Grey: noise between two halves of the reals." if len(noise) else ""
    foot = f"{interval_text(part, seeds_drawn=True)}{band} n: subjects behind each value.{features}"
    title = f"Image quality by group: {dataset_name(dataset)}"
    methods = ordered_methods(part["method"])
    looks = [look_of(method) for method in methods]
    fig = page(0.9 + 2.25 * len(panels), title, foot, notes, looks)
    with matplotlib.rc_context(STYLE):
        for sub, attributes in zip(stacked(fig, len(panels)), panels, strict=True):
            _quality_row(sub, part, seeds, attributes, methods, metric)
            shade_floor(sub.axes, noise, part, attributes)
        limits = [ax.get_ylim() for ax in fig.axes]
        for ax in fig.axes:  # one scale for the page
            ax.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    return fig


def interval_text(table: pd.DataFrame, *, seeds_drawn: bool = False) -> str:
    """What whiskers mean, from the table's own columns, and dots of single seeds if drawn."""
    several = "seeds" in table and table["seeds"].astype(str).str.contains(",").any()
    if several:
        small = "; small dots: single seeds" if seeds_drawn else ""
        return f"Dots: mean over seeds, with 95% interval over seeds{small}."
    return "Dots: one training seed; 95% interval over subjects, not over training runs."


def _quality_row(
    sub: Any,
    table: pd.DataFrame,
    seeds: pd.DataFrame,
    attributes: Sequence[str],
    methods: Sequence[str],
    metric: str,
) -> None:
    """A row of panels that share the scale; a panel's width follows its number of levels."""
    levels = {
        a: list(dict.fromkeys(table.loc[table["attribute"] == a, "level"])) for a in attributes
    }
    widths = [max(10, sum(max(len(level), 7) for level in levels[a])) for a in attributes]
    axes = sub.subplots(1, len(attributes), sharey=True, squeeze=False, width_ratios=widths)[0]
    for ax, attribute in zip(axes, attributes, strict=True):
        part = table[table["attribute"] == attribute]
        own = seeds[seeds["attribute"] == attribute]
        _quality_panel(ax, part, own, levels[attribute], methods)
        ax.set_title(name_of(attribute), loc="left")
    axes[0].set_ylabel(name_of(metric))


def _quality_panel(
    ax: Axes,
    table: pd.DataFrame,
    seeds: pd.DataFrame,
    levels: Sequence[str],
    methods: Sequence[str],
) -> None:
    """Methods side by side at each level; said in words where nothing could be estimated."""
    step = min(0.22, 0.7 / max(len(methods), 1))
    for at, level in enumerate(levels):
        part = table[table["level"] == level]
        if not np.isfinite(part["value"]).any():
            ax.text(at, 0.03, "not estimable", transform=ax.get_xaxis_transform(), rotation=90,
                    ha="center", fontsize=6.5, color=MUTED)  # fmt: skip
        for i, method in enumerate(methods):
            place = at + step * (i - (len(methods) - 1) / 2)
            for _, row in part[part["method"] == method].iterrows():
                whisker(ax, row, place, look_of(method))
            dots = seeds[(seeds["level"] == level) & (seeds["method"] == method)]["value"]
            xs = np.full(len(dots), place + step * 0.32)
            ax.plot(xs, dots, ".", color=look_of(method).colour, ms=2.5, alpha=0.6)
    ax.set_xticks(range(len(levels)), [_tick(table, level) for level in levels])
    ax.set_xlim(-0.5, len(levels) - 0.5)
    ax.tick_params(axis="x", length=0, labelsize=6.7)
    ax.axhline(0, color="#bbbbbb", lw=0.6, zorder=0)
    ax.grid(axis="y", color="#eeeeee", lw=0.6)
    ax.set_axisbelow(True)


def shade_floor(
    axes: Sequence[Axes], floor: pd.DataFrame, table: pd.DataFrame, attributes: Sequence[str]
) -> None:
    """Grey band from low to high behind each level's dots."""
    for ax, attribute in zip(axes, attributes, strict=True):
        levels = list(dict.fromkeys(table.loc[table["attribute"] == attribute, "level"]))
        for at, level in enumerate(levels):
            for _, row in _select(floor, attribute, level).head(1).iterrows():
                ax.fill_between(
                    [at - 0.38, at + 0.38], row["low"], row["high"], color="#e4e4e4", lw=0, zorder=0
                )


def _tick(table: pd.DataFrame, level: str) -> str:
    """A level's name, broken at a space or hyphen when long, with its n below."""
    counts = sorted({int(n) for n in table.loc[table["level"] == level, "n"]})
    number = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]}-{counts[-1]}"
    name = level.replace(" ", "\n", 1).replace("-", "-\n", 1) if len(level) > 11 else level
    return f"{name}\nn={number}"


def fig04(table: pd.DataFrame, notes: Sequence[str] = ()) -> Figure:
    """The optimiser's path: sigma per level, acquisition value, loss gap and loss.

    Parameters
    ----------
    table : DataFrame
        Columns dataset, method, seed, step, quantity ("sigma", "acquisition",
        "objective", "loss"; others are not drawn), attribute, level, value, as
        ``training.read_history`` gives them; attribute "" is the whole batch.
    notes : sequence of str
        Warnings to print on the page.
    """
    columns = ("dataset", "method", "seed", "step", "quantity", "attribute", "level", "value")
    dataset = require(table, columns, "fig04")
    sigma = table[table["quantity"] == "sigma"]
    attributes = list(dict.fromkeys(sigma["attribute"]))
    overall = table[table["attribute"] == ""]
    others = ["acquisition", "objective", "loss"]
    seeds = sorted(set(table["seed"]))
    foot = (
        "Step: optimiser step of the fine-tuning. Loss: unweighted denoising error, mean of the "
        "steps since the last mark. Gap: largest minus smallest level's loss, summed over "
        f"attributes. Training seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}."
    )
    if "random" in set(sigma["method"]):
        foot += " Sigma: dotted for the random perturbation."
    title = f"What the optimiser did: {dataset_name(dataset)}"
    looks = [look_of(method) for method in ordered_methods(table["method"])]
    fig = page(2.6 + 2.0 * bool(attributes), title, foot, notes)
    with matplotlib.rc_context(STYLE):
        grid = stacked(fig, 1 + bool(attributes))
        if attributes:
            axes = grid[0].subplots(1, len(attributes), sharey=True, squeeze=False)[0]
            for ax, attribute in zip(axes, attributes, strict=True):
                _sigma_panel(ax, sigma[sigma["attribute"] == attribute], attribute)
            axes[0].set_ylabel("sigma (0 = no noise)")
        labels = ("acquisition (UCB) of the next sigma", "objective: minus the loss gap", "loss")
        for ax, quantity, label in zip(grid[-1].subplots(1, 3), others, labels, strict=True):
            _path_panel(ax, overall[overall["quantity"] == quantity], label)
            panel_legend(ax, looks if quantity == "loss" else [])
    return fig


def loss_page(history: pd.DataFrame) -> Figure:
    """The loss of one run against the step, a panel per stage (VAE, base U-Net, fine-tuning).

    Parameters
    ----------
    history : DataFrame
        dataset, method, seed, stage, step, quantity, attribute, level, value.
    """
    dataset = require(history, ("dataset", "method", "stage", "step", "value"), "loss page")
    whole = history[(history["quantity"] == "loss") & (history["attribute"] == "")]
    stages = list(dict.fromkeys(whole["stage"]))
    label = look_of(str(history["method"].iloc[0])).label
    fig = page(2.4, f"Training loss of {label}: {dataset_name(dataset)}", "Mean of the batches.")
    with matplotlib.rc_context(STYLE):
        axes = fig.subplots(1, max(len(stages), 1), squeeze=False)[0]
        for ax, stage in zip(axes, stages, strict=False):
            _path_panel(ax, whole[whole["stage"] == stage], f"stage: {stage}")
    return fig


def _sigma_panel(ax: Axes, table: pd.DataFrame, attribute: str) -> None:
    """Sigma of every level of an attribute against the step, a colour per level."""
    levels = list(dict.fromkeys(table["level"]))
    for i, level in enumerate(levels):
        part = table[table["level"] == level]
        for j, ((method, _), run) in enumerate(part.groupby(["method", "seed"], sort=True)):
            ax.plot(run["step"], run["value"], ":" if method == "random" else "-", lw=0.9,
                    color=LEVEL_COLOURS[i % 7], alpha=0.9 if j == 0 else 0.45,
                    label=level if j == 0 else None)  # fmt: skip
    ax.set_ylim(-0.02, 1.22)
    ax.set_xlabel("step")
    ax.set_title(name_of(attribute), loc="left")
    ax.legend(fontsize=6.5, loc="upper left", ncols=3, handlelength=1.0, columnspacing=0.8)


def _path_panel(ax: Axes, table: pd.DataFrame, label: str) -> None:
    """One quantity against the step, a colour per method and a line per seed."""
    for (method, _), run in table.groupby(["method", "seed"], sort=True):
        look = look_of(str(method))
        points = run[np.isfinite(run["value"])]
        few = len(points) <= 30
        ax.plot(points["step"], points["value"], color=look.colour, lw=0.8, alpha=0.8,
                marker=look.marker if few else None, ms=2.5)  # fmt: skip
    if table.empty or not np.isfinite(table["value"]).any():
        ax.text(0.5, 0.5, "none recorded", transform=ax.transAxes, ha="center", color=MUTED)
    ax.set_xlabel("step")
    ax.set_title(label[:1].upper() + label[1:], loc="left")


def fig05(
    table: pd.DataFrame,
    *,
    metrics: Sequence[str] = ("es_auc", "es_accuracy"),
    notes: Sequence[str] = (),
) -> Figure:
    """Equity-scaled metrics of the downstream classifiers, training sources side by side.

    Parameters
    ----------
    table : DataFrame
        Columns dataset, source, seeds (as in :func:`fig03`), classifier, condition, attribute,
        level, metric, n, value, low, high.
    metrics : sequence of str
        A row of panels each, and for each classifier; a panel per condition. Where more than
        four are in the table, those that generated images were asked for.
    notes : sequence of str
        Warnings to print on the page.
    """
    columns = ("dataset", "source", "seeds", "classifier", "condition", "attribute", "metric")
    dataset = require(table, (*columns, "n", "value", "low", "high"), "fig05")
    chosen = table[table["metric"].isin(metrics)]
    if chosen.empty:
        raise InputError(f"fig05: the table has none of the metrics {', '.join(metrics)}")
    part, _ = means_and_seeds(chosen, ["source", "classifier"])
    asked = part["condition"].isin(part.loc[part["source"] != "real", "condition"])
    if part["condition"].nunique() > _SIDE_BY_SIDE and asked.any():
        part = part[asked]
    rows = [(metric, name) for metric in metrics for name in dict.fromkeys(part["classifier"])]
    conditions = list(dict.fromkeys(part["condition"]))
    sources = ordered_methods(part["source"])
    counts = sorted({int(n) for n in part["n"]})
    many = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    foot = (
        "Equity-scaled M = M / (1 + sum over levels |M_level - M|), 1 is best (dashed; intervals "
        "are cut there). "
        f"Tested on real images, n = {many} subjects. {interval_text(part)}"
    )
    known = np.isfinite(part["value"])
    if (known & ~np.isfinite(part["low"])).any():
        foot += " No bar: not estimable, as where a level has one subject of a class."
    alone = set(conditions) - set(part.loc[part["source"] != "real", "condition"])
    if alone and len(sources) > 1:
        foot += " Real images alone: the prompt does not name that condition."
    attributes = list(dict.fromkeys(part["attribute"]))
    height = 1.2 + len(rows) * (0.55 + 0.42 * len(attributes))
    title = f"Which images train a fair classifier? {dataset_name(dataset)}"
    fig = page(height, title, foot, notes, [look_of(source) for source in sources])
    with matplotlib.rc_context(STYLE):
        axes = fig.subplots(len(rows), len(conditions), squeeze=False, sharex="row", sharey=True)
        for i, (metric, classifier) in enumerate(rows):
            own = part[(part["metric"] == metric) & (part["classifier"] == classifier)]
            for ax, condition in zip(axes[i], conditions, strict=True):
                _equity_panel(ax, own[own["condition"] == condition], attributes, sources)
                ax.set_xlabel(name_of(metric))
                if i == 0:
                    ax.set_title(name_of(condition), loc="left")
            axes[i, 0].set_ylabel(classifier_name(str(classifier)), fontsize=6.5)
            _end_at_one(axes[i])
    return fig


def _end_at_one(axes: Sequence[Axes]) -> None:
    """One scale for a row of panels: whiskers end at 1, which is best, with a line there."""
    limits = [ax.get_xlim() for ax in axes]
    for ax in axes:
        ax.set_xlim(min(low for low, _ in limits), 1.02)
        ax.axvline(1, color="#999999", lw=0.7, ls=(0, (4, 3)), zorder=0)


def _equity_panel(
    ax: Axes, table: pd.DataFrame, attributes: Sequence[str], sources: Sequence[str]
) -> None:
    """A row per attribute, a lying whisker per source."""
    step = min(0.2, 0.7 / max(len(sources), 1))
    for at, attribute in enumerate(attributes):
        if not np.isfinite(table.loc[table["attribute"] == attribute, "value"]).any():
            ax.text(0.03, at, "not estimable", transform=ax.get_yaxis_transform(), va="center",
                    fontsize=6.5, color=MUTED)  # fmt: skip
        for i, source in enumerate(sources):
            place = at + step * (i - (len(sources) - 1) / 2)
            chosen = (table["attribute"] == attribute) & (table["source"] == source)
            for _, row in table[chosen].iterrows():
                whisker(ax, row, place, look_of(source), across=True)
    ax.set_yticks(range(len(attributes)), [name_of(a) for a in attributes])
    ax.set_ylim(len(attributes) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color="#eeeeee", lw=0.6)
    ax.set_axisbelow(True)
