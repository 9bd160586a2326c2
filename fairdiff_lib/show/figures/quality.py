"""Notebooks 05 and 11: quality by group (F3), one generator's levels, FID against n."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fairdiff_lib.audit.seeds import means_and_seeds
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.names import axis_name, classifier_name, name_of, space_title
from fairdiff_lib.show.front import Nothing, figure
from fairdiff_lib.show.panels import (
    ROW,
    Rows,
    at_zero,
    beside,
    dot_rows,
    dots_beside,
    dots_foot,
    forest,
    in_order,
    interval_text,
    level_rows,
    lines,
    of_level,
    require,
    seeds,
    shade,
    stacked,
    whiskers,
)
from fairdiff_lib.show.style import (
    MUTED,
    Look,
    dataset_name,
    is_simulated,
    level_looks,
    look_of,
    ordered_methods,
    page,
)


@figure("fig03")
def fig03(
    table: Rows,
    *,
    # each row of panels: a metric of the table and the attributes; empty = KID of all in one row
    rows: Sequence[tuple[str, Sequence[str]]] = (),
    floor: str = "kid_floor",  # behind the values of KID
    notes: Sequence[str] = (),
    confidence: float = 0.95,  # of the intervals
) -> Figure:
    """Quality by group: a panel per attribute, methods side by side, n under each level.

    Rows of one metric share a scale.
    """
    columns = ("dataset", "method", "seeds", "attribute", "level", "metric", "n", "value")
    dataset = require(table, (*columns, "low", "high"), "fig03")
    rows = list(rows) or [("kid", in_order(table[table["metric"] == "kid"], "attribute"))]
    one_seed = ~table["seeds"].astype(str).str.contains(",")  # a mean has no width of its own
    noise = table[(table["metric"] == floor) & one_seed]
    drawn = {name: means_and_seeds(_of_metric(table, name), ["method"]) for name, _ in rows}
    panels = [
        (name, [a for a in own if a in set(drawn[name][0]["attribute"])]) for name, own in rows
    ]
    panels = [(name, own) for name, own in panels if own]
    spans = {name: _span(*parts) for name, parts in drawn.items()}
    first, single = drawn[panels[0][0]]
    foot = interval_text(first, seeds_drawn=True, confidence=confidence)
    foot += _band(noise, spans["kid"]) if "kid" in spans else ""
    foot += " n: subjects behind each value."
    foot += f" Features: {space_title(first['features'].iloc[0])}." if "features" in first else ""
    looks = {method: look_of(method) for method in ordered_methods(first["method"])}
    title = f"Image quality by group: {dataset_name(dataset)}"
    fig = page(0.9 + 2.25 * len(panels), title, foot, notes, list(looks.values()))
    for sub, (name, attributes) in zip(stacked(fig, len(panels)), panels, strict=True):
        part, single = drawn[name]
        behind = noise if name == "kid" else noise.iloc[:0]
        axes = _row(sub, part, single, behind, attributes, looks)
        axes[0].set_ylabel(axis_name(name))
        for ax in axes:  # one scale for the metric, set by what is compared
            ax.set_ylim(*spans[name])
    return fig


def _of_metric(table: Rows, metric: str) -> Rows:
    chosen = table[table["metric"] == metric]
    if chosen.empty:
        raise InputError(f"fig03: the table has no metric {metric!r}")
    return chosen


def _band(noise: Rows, span: tuple[float, float]) -> str:
    """What the grey band is, and whether the page cuts it."""
    if noise.empty:
        return ""
    said = " Grey: what chance alone gives between two halves of the real images"
    if noise["low"].min() < span[0] or noise["high"].max() > span[1]:
        said += ", cut at the page where a level has few"
    return f"{said}."


def _span(*tables: Rows) -> tuple[float, float]:
    """From the lowest to the highest whisker or dot, zero within, with a margin."""
    ends = [part[key].to_numpy(float) for part in tables for key in ("value", "low", "high")]
    known = np.concatenate([*ends, [0.0]])
    known = known[np.isfinite(known)]
    margin = 0.06 * (np.ptp(known) or 1.0)
    return float(known.min() - margin), float(known.max() + margin)


def _row(
    sub: Any,
    table: Rows,
    single: Rows,
    noise: Rows,
    attributes: Sequence[str],
    looks: Mapping[str, Look],
) -> Sequence[Axes]:
    """A row of panels that share the scale; a panel's width follows its number of levels."""
    levels = {a: in_order(table[table["attribute"] == a], "level") for a in attributes}
    widths = [max(10, sum(max(len(level), 7) for level in levels[a])) for a in attributes]
    axes = sub.subplots(1, len(attributes), sharey=True, squeeze=False, width_ratios=widths)[0]
    for ax, attribute in zip(axes, attributes, strict=True):
        part = table[table["attribute"] == attribute]
        for at, level in enumerate(levels[attribute]):
            for _, row in of_level(noise, attribute, level).head(1).iterrows():
                shade(ax, at, float(row["low"]), float(row["high"]))
            whiskers(ax, part[part["level"] == level], at, looks)
            dots = of_level(single, attribute, level)
            for i, (method, look) in enumerate(looks.items()):
                seeds(ax, dots[dots["method"] == method], at + beside(len(looks), i) + 0.07, look)
        ticks = [_tick(part, level) for level in levels[attribute]]
        ax.set_xticks(range(len(ticks)), ticks)
        ax.set_xlim(-0.5, len(ticks) - 0.5)
        ax.tick_params(axis="x", length=0, labelsize=6.7)
        at_zero(ax)
        ax.set_title(name_of(attribute), loc="left")
    return list(axes)


def _tick(table: Rows, level: str) -> str:
    """A level's name, broken at a space or hyphen when long, with its n below."""
    counts = sorted({int(n) for n in table.loc[table["level"] == level, "n"]})
    number = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]}-{counts[-1]}"
    name = level.replace(" ", "\n", 1).replace("-", "-\n", 1) if len(level) > 11 else level
    return f"{name}\nn={number}"


@figure("by_group", kept=False)
def by_group_dots(
    table: Rows,  # ``Audit.by_group``; with floor_low and floor_high the floor is shaded
    *more: Rows,  # of the same groups by other metrics, beside it
    title: str = "Image quality by group",  # says "simulated" where the images are
    unit: str = "subject",  # what n counts
    confidence: float = 0.95,  # of the intervals
    notes: Sequence[str] = (),
) -> Figure:
    """One generator's metric by level, each with interval, n and the real-real floor."""
    columns = ("attribute", "level", "metric", "n", "value", "low", "high")
    for one in (table, *more):
        require(one.assign(dataset="own"), columns, "by-group dots")
        if one["metric"].nunique() != 1:
            names = ", ".join(sorted(set(one["metric"])))
            raise InputError(f"by-group dots: expected one metric, found {names}")
    height = 1.0 + ROW * len(dot_rows(table))
    fig = page(height, title, dots_foot(table, unit, confidence), notes)
    dots_beside(fig, [table, *more])
    return fig


@figure("fid_against_n", kept=False)
def fid_against_n_figure(
    rows: Rows,
    *,
    limits: Mapping[str, float] | None = None,
    title: str = "FID of the same images, by how many of them are used",
    limit: str = "the limit",
    notes: Sequence[str] = (),
) -> Figure:
    """Plain FID depends on n: two levels of unequal n differ in it without any disparity."""
    require(rows.assign(dataset="own"), ("n", "draw", "value"), "FID against n")
    table = rows if "level" in rows else rows.assign(level="")
    table = table.astype({"level": str})
    looks = {look.label: look for look in level_looks(in_order(table, "level"))}
    draws = table["draw"].nunique()
    foot = (
        f"Lines: mean of {draws} random subset{'s' * (draws > 1)} of n images a side. Dots: each."
    )
    foot += f" Dashed: {limit}." if limits else ""
    fig = page(3.0, title, foot, notes, [look for look in looks.values() if look.label])
    size_panel(fig.subplots(), table, looks, limits or {})
    return fig


def size_panel(
    ax: Axes, table: Rows, looks: Mapping[str, Look], limits: Mapping[str, float]
) -> None:
    """FID against n, a line per level through the mean of its draws."""
    mean = table.groupby(["level", "n"])[["value"]].mean().reset_index()
    lines(ax, mean, "n", looks, marker="o", markersize=4.2)
    for level, look in looks.items():
        own = table[table["level"] == level]
        ax.plot(own["n"], own["value"], ".", color=look.colour, ms=3, alpha=0.4)
    for level, value in limits.items():
        if np.isfinite(value):
            colour = looks[level].colour if level in looks else MUTED
            ax.axhline(value, color=colour, lw=0.9, ls=(0, (4, 3)))
    sizes = sorted(set(table["n"]))
    ax.set_xscale("log")
    ax.set_xticks(sizes, [f"{n:,}" for n in sizes])
    ax.minorticks_off()
    ax.set_ylim(bottom=0)
    ax.set_xlabel("n, images on each side (logarithmic)")
    ax.set_ylabel(axis_name("fid"))
    ax.grid(axis="y")


GUESSING = 0.5


@figure("fig05")
def fig05(table: Rows, *, condition: str, metric: str = "auc", notes: Sequence[str] = ()) -> Figure:
    """AUC of a condition by level: a panel per classifier, training sources side by side."""
    columns = ("dataset", "source", "seeds", "classifier", "condition", "attribute", "level")
    dataset = require(table, (*columns, "metric", "n", "value", "low", "high"), "fig05")
    chosen = table[(table["condition"] == condition) & (table["metric"] == metric)]
    if chosen.empty:
        raise Nothing(f"fig05: the table has no {metric} of {condition}")
    shown, single = means_and_seeds(chosen, ["source", "classifier"])
    rows, classifiers = level_rows(shown), in_order(shown, "classifier")
    looks = {source: look_of(source) for source in ordered_methods(shown["source"])}
    whose = "simulated" if is_simulated(dataset) else "real"
    foot = (
        f"Rows: groups of {whose} test patients (in brackets, how many). Colours: the images that "
        f"the classifier was trained on. Dashed: guessing. {interval_text(shown, seeds_drawn=True)}"
    )
    title = f"Which images train a fair classifier? {name_of(condition)}, {dataset_name(dataset)}"
    fig = page(1.2 + 1.5 * ROW * len(rows), title, foot, notes, list(looks.values()))
    axes = fig.subplots(1, len(classifiers), squeeze=False, sharex=True, sharey=True)[0]
    for ax, classifier in zip(axes, classifiers, strict=True):
        own = shown[shown["classifier"].astype(str) == classifier]
        forest(ax, own, rows, looks, column="source", null=GUESSING, single=single[
            single["classifier"].astype(str) == classifier
        ])  # fmt: skip
        ax.set_title(classifier_name(classifier), loc="left")
        ax.set_xlabel(axis_name(metric))
    return fig
