"""Pictures of classifiers by group: ROC, reliability, confusion, slopes, probes. Computes nothing.

Tables name a ``method``: "real" for real images, or what made the images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.audit.seeds import means_and_seeds
from fairdiff_lib.show.panels import interval_text
from fairdiff_lib.settings.names import name_of
from fairdiff_lib.show.panels import panel_legend, require, whisker
from fairdiff_lib.show.style import LEVEL_COLOURS, MUTED, STYLE, Look, dataset_name, look_of, ordered_methods, page

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HEAT = "#0072b2"  # of confusions; its strength is the share
LEAST_SPAN = 0.1  # of an axis of slopes
Rows = pd.DataFrame


def level_looks(levels: Sequence[str], counts: Mapping[str, int] | None = None) -> list[Look]:
    """A colour and a marker per level of an attribute, with its n where it is known."""
    known = counts or {}
    labels = [f"{level} ({known[level]})" if level in known else level for level in levels]
    return [
        Look(label, LEVEL_COLOURS[k % len(LEVEL_COLOURS)], MARKERS[k % len(MARKERS)])
        for k, label in enumerate(labels)
    ]


def _in_order(table: Rows, column: str) -> list[str]:
    return [str(name) for name in dict.fromkeys(table[column])]


def _attributes(table: Rows) -> list[str]:
    return [name for name in _in_order(table, "attribute") if name != "overall"]


def _one_classifier(table: Rows, figure: str) -> str:
    """The classifier that a picture shows, "" where the table names none."""
    names = _in_order(table, "classifier") if "classifier" in table.columns else []
    if len(names) > 1:
        raise InputError(f"{figure}: the table has {', '.join(names)}; expected one classifier")
    return names[0] if names else ""


# -- a panel per source and attribute --------------------------------------------------------


def fig_roc(table: Rows, *, condition: str, notes: Sequence[str] = ()) -> Figure:
    """ROC curves of every level, a row of panels per source of training images.

    Parameters
    ----------
    table : DataFrame
        dataset, method, then the columns of ``curves.roc_rows``.
    condition : str
        Named in the title.
    notes : sequence of str
        Warnings to print on the page.
    """
    columns = ("method", "attribute", "level", "n", "false_positive_rate", "value", "low", "high")
    dataset = require(table, ("dataset", *columns), "fig_roc")
    foot = (
        "Rows: what the classifier was trained on; all are tested on the same real images. "
        "In brackets: subjects. Bands: pointwise 95%, bootstrap over subjects at each "
        "false-positive rate by itself. Levels with fewer than 10 subjects of a class have no "
        "curve. One training seed."
    )
    title = f"Who is found at which price? {name_of(condition)}, {dataset_name(dataset)}"
    foot = f"{_one_classifier(table, 'fig_roc')}. {foot}".removeprefix(". ")
    return _grid(table, title, foot, notes, _roc_panel, ("false-positive rate", "sensitivity"))


def _roc_panel(ax: Axes, table: Rows, looks: Mapping[str, Look]) -> None:
    ax.plot([0, 1], [0, 1], color="#bbbbbb", lw=0.6, zorder=0)
    missing = []
    for level, look in looks.items():
        own = table[table["level"] == level]
        if not np.isfinite(own["value"]).any():
            missing.append(level)
            continue
        x = own["false_positive_rate"]
        ax.fill_between(x, own["low"], own["high"], color=look.colour, alpha=0.16, lw=0)
        ax.plot(x, own["value"], color=look.colour, lw=1.2)
    if missing:
        ax.text(0.98, 0.04, f"{', '.join(missing)}:\nnot estimable", ha="right", fontsize=6.5,
                color=MUTED)  # fmt: skip


def fig_reliability(table: Rows, *, condition: str, notes: Sequence[str] = ()) -> Figure:
    """How often it came true against what was said, by level, a row of panels per source.

    Parameters
    ----------
    table : DataFrame
        dataset, method, then the columns of ``curves.reliability_rows``.
    condition, notes
        As for :func:`fig_roc`.
    """
    columns = ("method", "attribute", "level", "n", "probability", "value", "low", "high")
    dataset = require(table, ("dataset", *columns), "fig_reliability")
    foot = (
        "Dots: subjects in bins of equal mass within each level, at least 10 in each; whiskers: "
        "95% intervals over subjects (none where all had the same outcome). On the diagonal a "
        "probability means what it says; below it, it promises too much. In brackets: subjects. "
        "One training seed."
    )
    title = f"May the probabilities be believed? {name_of(condition)}, {dataset_name(dataset)}"
    axes = ("predicted probability", "share that came true")
    foot = f"{_one_classifier(table, 'fig_reliability')}. {foot}".removeprefix(". ")
    return _grid(table, title, foot, notes, _reliability_panel, axes)


def _reliability_panel(ax: Axes, table: Rows, looks: Mapping[str, Look]) -> None:
    ax.plot([0, 1], [0, 1], color="#bbbbbb", lw=0.6, zorder=0)
    for level, look in looks.items():
        own = table[table["level"] == level]
        ax.plot(own["probability"], own["value"], color=look.colour, lw=0.7, alpha=0.7, zorder=1)
        for _, row in own.iterrows():
            whisker(ax, row, float(row["probability"]), look)


def _grid(
    table: Rows,
    title: str,
    foot: str,
    notes: Sequence[str],
    draw: Callable[[Axes, Rows, Mapping[str, Look]], None],
    labels: tuple[str, str],
) -> Figure:
    """Square panels: a row per method, a column per attribute, both axes from 0 to 1."""
    methods, attributes = ordered_methods(table["method"]), _attributes(table)
    fig = page(0.95 + 1.95 * len(methods), title, foot, notes)
    with matplotlib.rc_context(STYLE):
        panels = fig.subplots(
            len(methods), len(attributes), squeeze=False, sharex=True, sharey=True
        )
        for i, method in enumerate(methods):
            for ax, attribute in zip(panels[i], attributes, strict=True):
                own = table[(table["method"] == method) & (table["attribute"] == attribute)]
                looks = _own_looks(own)
                draw(ax, own, looks)
                ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
                ax.set(xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
                ax.grid(color="#eeeeee", lw=0.6)
                ax.set_axisbelow(True)
                if i == 0:
                    ax.set_title(name_of(attribute), loc="left")
                    panel_legend(ax, list(looks.values()))
                if i == len(methods) - 1:
                    ax.set_xlabel(labels[0])
            panels[i][0].set_ylabel(f"{look_of(method).label}\n{labels[1]}")
    return fig


def _own_looks(table: Rows) -> dict[str, Look]:
    """Levels of one panel with their n: of the level, or summed over its bins."""
    levels = _in_order(table, "level")
    bins = "probability" in table
    n = table.groupby("level")["n"].sum() if bins else table.groupby("level")["n"].max()
    looks = level_looks(levels, {level: int(n[level]) for level in levels})
    return dict(zip(levels, looks, strict=True))


# -- confusion -------------------------------------------------------------------------------


def fig_confusion(table: Rows, *, condition: str, notes: Sequence[str] = ()) -> Figure:
    """What images of every class were called, by level: a row per source, a column per level.

    Parameters
    ----------
    table : DataFrame
        dataset, method, then the columns of ``curves.confusion_rows``.
    condition, notes
        As for :func:`fig_roc`.
    """
    columns = ("method", "attribute", "level", "truth", "called", "n", "count", "value")
    dataset = require(table, ("dataset", *columns, "low", "high"), "fig_confusion")
    methods, groups = ordered_methods(table["method"]), table[["attribute", "level"]]
    keys = list(groups.drop_duplicates().itertuples(index=False, name=None))
    classes = _in_order(table, "truth")
    foot = (
        f"Each square: rows are the truth, columns what was called, from the top left "
        f"{' | '.join(classes)}. Inside: percent of the row with its 95% interval over subjects, "
        "or the count where there are fewer than 10 subjects of that truth or all were called "
        "the same; at the right: subjects of that truth. "
        "Threshold from validation, one for all levels. One training seed."
    )
    title = f"Who is missed, who is alarmed? {name_of(condition)}, {dataset_name(dataset)}"
    foot = f"{_one_classifier(table, 'fig_confusion')}. {foot}".removeprefix(". ")
    fig = page(0.95 + 0.74 * len(methods), title, foot, notes)
    with matplotlib.rc_context(STYLE):
        panels = fig.subplots(len(methods), len(keys), squeeze=False)
        for i, method in enumerate(methods):
            for ax, (attribute, level) in zip(panels[i], keys, strict=True):
                own = table[(table["method"] == method) & (table["level"] == level)]
                _confusion_panel(ax, own[own["attribute"] == attribute], classes)
                if i == 0:
                    ax.set_title("All" if attribute == "overall" else level, fontsize=7.5)
            panels[i][0].set_ylabel(look_of(method).label.replace(" ", "\n"), fontsize=7)
    return fig


def _confusion_panel(ax: Axes, table: Rows, classes: Sequence[str]) -> None:
    """One square per truth and call; its strength is the share."""
    k = len(classes)
    size = 6.5 if k < 3 else 4.5
    for _, row in table.iterrows():
        x, y = classes.index(row["called"]), classes.index(row["truth"])
        value = float(row["value"])
        strength = 0.55 * value if np.isfinite(value) else 0.0
        square = matplotlib.patches.Rectangle(
            (x - 0.5, y - 0.5), 1, 1, fc=HEAT, ec="white", alpha=strength, lw=0.8
        )
        ax.add_patch(square)
        ax.text(x, y, _cell(row, k), ha="center", va="center", fontsize=size,
                linespacing=1.15)  # fmt: skip
        if x == k - 1:
            ax.text(k - 0.45, y, f"{int(row['n'])}", va="center", fontsize=6, color=MUTED)
    ax.set(xlim=(-0.5, k - 0.5), ylim=(k - 0.5, -0.5), xticks=[], yticks=[], aspect="equal")
    for spine in ax.spines.values():
        spine.set(visible=True, color="#bbbbbb", lw=0.6)


def _cell(row: pd.Series[Any], classes: int) -> str:
    value, low, high = (float(row[name]) for name in ("value", "low", "high"))
    if not (np.isfinite(value) and np.isfinite(low)):
        return f"{int(row['count'])}"
    share = f"{100 * value:.0f}%"
    return f"{share}\n{100 * low:.0f}-{100 * high:.0f}" if classes < 3 else share


# -- slopes: real, then each method ----------------------------------------------------------


def fig_slopes(
    table: Rows,
    lines: Sequence[tuple[str, str]],
    *,
    title: str,
    foot: str = "",
    notes: Sequence[str] = (),
) -> Figure:
    """A line per level from real images to each method: a row of panels per metric.

    Parameters
    ----------
    table : DataFrame
        dataset, method, seeds, condition, attribute, level, metric, n, value, low, high.
    lines : sequence of (condition, metric)
        A row of panels each. Metrics are shares, or on their scale.
    title : str
        The dataset's name is added, and the condition's where there is one.
    foot : str
        What the values rest on; the meaning of the marks is added.
    notes : sequence of str
        Warnings to print on the page.

    Raises
    ------
    InputError
        The table lacks a column or a pair of ``lines``, or has several classifiers.
    """
    columns = ("method", "seeds", "condition", "attribute", "level", "metric", "n", "value")
    dataset = require(table, ("dataset", *columns, "low", "high"), "fig_slopes")
    shown, _ = means_and_seeds(table, ["method"])
    conditions = list(dict.fromkeys(condition for condition, _ in lines))
    attributes = [name for name in _attributes(shown) if name not in set(shown["condition"])]
    foot = f"{_one_classifier(table, 'fig_slopes')}. {foot}".removeprefix(". ")
    text = f"{foot} {interval_text(table)} In brackets: subjects behind a value (fewest).".strip()
    words = f"{name_of(conditions[0])}, " if len(conditions) == 1 else ""
    head = f"{title} {words}{dataset_name(dataset)}"
    fig = page(0.95 + 1.7 * len(lines), head, text, notes)
    with matplotlib.rc_context(STYLE):
        panels = fig.subplots(len(lines), len(attributes), squeeze=False, sharey="row")
        for row, (condition, metric) in zip(panels, lines, strict=True):
            own = shown[(shown["condition"] == condition) & (shown["metric"] == metric)]
            if own.empty:
                raise InputError(f"fig_slopes: the table has no {metric!r} of {condition!r}")
            _slope_row(row, own, attributes, ordered_methods(shown["method"]))
            front = "" if words else f"{name_of(condition)}\n"
            row[0].set_ylabel(f"{front}{name_of(metric)}")
        for ax, attribute in zip(panels[0], attributes, strict=True):
            ax.set_title(name_of(attribute), loc="left", pad=15)
        for ax in panels[:-1].flat:
            ax.set_xticklabels([])
    return fig


def _slope_row(
    axes: Sequence[Axes], table: Rows, attributes: Sequence[str], methods: Sequence[str]
) -> None:
    """A panel per attribute, on one scale that spans at least ``LEAST_SPAN``."""
    names = [look_of(name).label.replace(" ", "\n", 1) for name in methods]
    for ax, attribute in zip(axes, attributes, strict=True):
        _slope_panel(ax, table[table["attribute"] == attribute], methods)
        ax.set_xticks(range(len(methods)), names)
        panel_legend(ax, list(_slope_looks(table, attribute).values()))
    low, high = np.clip(axes[0].get_ylim(), -0.01, 1.01)  # of a share: no room beyond 0 and 1
    lack = max(0.0, LEAST_SPAN - (high - low))  # noise in the fourth digit is no slope
    low = max(-0.01, low - lack)
    axes[0].set_ylim(low, max(high, low + LEAST_SPAN))


def _slope_looks(table: Rows, attribute: str) -> dict[str, Look]:
    """Levels of an attribute with the smallest n behind any of their values."""
    own = table[table["attribute"] == attribute]
    levels = _in_order(own, "level")
    n = own.groupby("level")["n"].min()
    looks = level_looks(levels, {level: int(n[level]) for level in levels})
    return dict(zip(levels, looks, strict=True))


def _slope_panel(ax: Axes, table: Rows, methods: Sequence[str]) -> None:
    """Levels side by side at each method, joined by a line; said in words where missing."""
    if table.empty:
        return
    looks = _slope_looks(table, str(table["attribute"].iloc[0]))
    step, missing = 0.13, []
    for k, (level, look) in enumerate(looks.items()):
        own = table[table["level"] == level].set_index("method").reindex(list(methods))
        xs = np.arange(len(methods)) + step * (k - (len(looks) - 1) / 2)
        if not np.isfinite(own["value"]).any():
            missing.append(level)
        ax.plot(xs, own["value"], color=look.colour, lw=0.9, alpha=0.75, zorder=1)
        for x, (_, row) in zip(xs, own.iterrows(), strict=True):
            whisker(ax, row, float(x), look)
    if missing:
        ax.text(0.99, 0.98, f"{', '.join(missing)}: not estimable", transform=ax.transAxes,
                ha="right", va="top", fontsize=6.3, color=MUTED)  # fmt: skip
    ax.set_xlim(-0.45, len(methods) - 0.55)
    ax.tick_params(axis="x", length=0, labelsize=6.7)
    ax.grid(axis="y", color="#eeeeee", lw=0.6)
    ax.set_axisbelow(True)


# -- demographic probe -----------------------------------------------------------------------


def fig_probe(table: Rows, notes: Sequence[str] = ()) -> Figure:
    """AUC of linear probes: a row of panels per feature space, a column per training source.

    Parameters
    ----------
    table : DataFrame
        dataset, method, features, trained_on, attribute, level, metric, seeds, n, value, low,
        high, as ``shown_study.collect_probe`` makes.
    notes : sequence of str
        Warnings to print on the page.
    """
    columns = ("method", "features", "trained_on", "attribute", "level", "metric", "n", "value")
    dataset = require(table, ("dataset", *columns, "low", "high"), "fig_probe")
    chosen, _ = means_and_seeds(table[table["metric"] == "probe_auc"], ["method"])
    if chosen.empty:
        raise InputError("fig_probe: the table has no metric 'probe_auc'")
    keys = list(chosen[["attribute", "level"]].drop_duplicates().itertuples(index=False, name=None))
    spaces, methods = _in_order(chosen, "features"), ordered_methods(chosen["method"])
    counts = sorted({int(n) for n in chosen["n"]})
    many = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    foot = (
        "AUC of a logistic regression that tells a level from the others (bold: mean over the "
        "attribute's levels); 0.5: it can't be told. Trained on training images, tested on "
        f"images of n = {many} test subjects. {interval_text(chosen)} What a level has more "
        "often, as a disease, can be read too."
    )
    looks = [look_of(method) for method in methods]
    height = 0.95 + len(spaces) * (0.5 + 0.2 * len(keys))
    title = f"Can the group be read from an image? {dataset_name(dataset)}"
    fig = page(height, title, foot, notes, looks)
    headings = {"own": "trained on the same kind of image", "real": "trained on real images"}
    with matplotlib.rc_context(STYLE):
        panels = fig.subplots(len(spaces), 2, squeeze=False, sharex=True, sharey=True)
        for i, space in enumerate(spaces):
            for ax, (source, heading) in zip(panels[i], headings.items(), strict=True):
                fits = (chosen["trained_on"] == source) | (chosen["method"] == "real")
                _probe_panel(ax, chosen[fits & (chosen["features"] == space)], keys, methods)
                ax.set_title(f"{name_of(space)} features, {heading}", loc="left", fontsize=7.5)
                if i == len(spaces) - 1:
                    ax.set_xlabel("AUC")
    return fig


def _probe_panel(
    ax: Axes, table: Rows, keys: Sequence[tuple[str, str]], methods: Sequence[str]
) -> None:
    """A row per attribute and level, a lying whisker per method."""
    step = min(0.24, 0.75 / max(len(methods), 1))
    for at, (attribute, level) in enumerate(keys):
        own = table[(table["attribute"] == attribute) & (table["level"] == level)]
        for k, method in enumerate(methods):
            for _, row in own[own["method"] == method].iterrows():
                place = at + step * (k - (len(methods) - 1) / 2)
                whisker(ax, row, place, look_of(method), across=True)
        if level == "all" and at:
            ax.axhline(at - 0.5, color="#dddddd", lw=0.6, zorder=0)
    ax.axvline(0.5, color="#999999", lw=0.7, ls=(0, (4, 3)), zorder=0)
    labels = [name_of(a) if level == "all" else level for a, level in keys]
    ax.set_yticks(range(len(keys)), labels)
    for text, (_, level) in zip(ax.get_yticklabels(), keys, strict=False):  # none within
        text.set_fontweight("bold" if level == "all" else "normal")
    ax.set_ylim(len(keys) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color="#eeeeee", lw=0.6)
    ax.set_axisbelow(True)
