"""Notebook 12: ROC, reliability, confusion, slopes and probes by group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fairdiff_lib.audit.seeds import means_and_seeds
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.names import (
    NOT_ESTIMABLE,
    classifier_name,
    method_name,
    name_of,
    space_title,
)
from fairdiff_lib.show.front import Nothing, figure
from fairdiff_lib.show.panels import (
    Rows,
    attributes_of,
    counted_looks,
    forest,
    heat,
    in_order,
    interval_text,
    level_paths,
    level_rows,
    name_missing,
    of_level,
    panel_legend,
    require,
    whisker,
)
from fairdiff_lib.show.style import (
    MUTED,
    Look,
    dataset_name,
    look_of,
    ordered_methods,
    page,
)

LEAST_SPAN = 0.1  # of an axis of slopes
DIAGONAL = {"color": "#bbbbbb", "lw": 0.6, "zorder": 0}


def _classifier(table: Rows, what: str) -> str:
    """The classifier that a picture shows, as a sentence; "" where the table names none."""
    names = in_order(table, "classifier") if "classifier" in table else []
    if len(names) > 1:
        raise InputError(f"{what}: the table has {', '.join(names)}; expected one classifier")
    return f"{classifier_name(names[0])}. " if names else ""


# -- a panel per source and attribute --------------------------------------------------------


@figure("fig_roc")
def fig_roc(table: Rows, *, condition: str, notes: Sequence[str] = ()) -> Figure:
    """ROC curves of every level (``audit.harm.roc_rows``), a row per source of training images."""
    columns = ("method", "attribute", "level", "n", "false_positive_rate", "value", "low", "high")
    dataset = require(table, ("dataset", *columns), "fig_roc")
    foot = (
        f"{_classifier(table, 'fig_roc')}Rows: what the classifier was trained on; all are tested "
        "on the same real images. In brackets: patients. Bands: 95%, bootstrap over patients at "
        "each false-positive rate by itself. Levels with fewer than 10 patients of a class have "
        "no curve. One training seed."
    )
    title = f"Who is found at which price? {name_of(condition)}, {dataset_name(dataset)}"
    return _grid(table, title, foot, notes, _roc, ("false-positive rate", "sensitivity"))


def _roc(ax: Axes, table: Rows, looks: Mapping[str, Look]) -> None:
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
        ax.text(0.98, 0.04, f"{', '.join(missing)}:\n{NOT_ESTIMABLE}", ha="right", fontsize=6.5,
                color=MUTED)  # fmt: skip


@figure("fig_reliability")
def fig_reliability(table: Rows, *, condition: str, notes: Sequence[str] = ()) -> Figure:
    """How often it came true against what was said (``audit.harm.reliability_rows``), by level."""
    columns = ("method", "attribute", "level", "n", "probability", "value", "low", "high")
    dataset = require(table, ("dataset", *columns), "fig_reliability")
    foot = (
        f"{_classifier(table, 'fig_reliability')}Dots: patients in bins of equal size within each "
        "level, at least 10 in each; whiskers: 95% intervals over patients (none where all had the "
        "same outcome). On the diagonal a probability means what it says; below it, it promises "
        "too much. In brackets: patients. One training seed."
    )
    title = f"May the probabilities be believed? {name_of(condition)}, {dataset_name(dataset)}"
    axes = ("predicted probability", "share that came true")
    return _grid(table, title, foot, notes, _reliability, axes)


def _reliability(ax: Axes, table: Rows, looks: Mapping[str, Look]) -> None:
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
    methods, attributes = ordered_methods(table["method"]), attributes_of(table)
    fig = page(0.95 + 1.95 * len(methods), title, foot, notes)
    size = (len(methods), len(attributes))
    panels = fig.subplots(*size, squeeze=False, sharex=True, sharey=True)
    for row, method in zip(panels, methods, strict=True):
        for ax, attribute in zip(row, attributes, strict=True):
            own = table[(table["method"] == method) & (table["attribute"] == attribute)]
            looks = counted_looks(own, summed="probability" in own)
            ax.plot([0, 1], [0, 1], **DIAGONAL)
            draw(ax, own, looks)
            ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
            ax.set(xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
            ax.grid()
            if ax in panels[0]:
                ax.set_title(name_of(attribute), loc="left")
                panel_legend(ax, list(looks.values()))
            if ax in panels[-1]:
                ax.set_xlabel(labels[0])
        row[0].set_ylabel(f"{method_name(method)}\n{labels[1]}")
    return fig


# -- confusion -------------------------------------------------------------------------------


@figure("fig_confusion")
def fig_confusion(table: Rows, *, condition: str, notes: Sequence[str] = ()) -> Figure:
    """What images of each class were called (``audit.harm.confusion_rows``), a column a level."""
    columns = ("method", "attribute", "level", "truth", "called", "n", "count", "value")
    dataset = require(table, ("dataset", *columns, "low", "high"), "fig_confusion")
    methods, keys = ordered_methods(table["method"]), level_rows(table)
    classes = in_order(table, "truth")
    one = "One threshold for all levels, from validation."
    rule = one if len(classes) == 2 else "Called is the likeliest."
    foot = (
        f"{_classifier(table, 'fig_confusion')}In each square: rows are the truth, columns what "
        f"was called, from the top left {' | '.join(classes)}. Inside: percent of the row with its "
        "95% interval over patients, or the count where there are fewer than 10 patients of that "
        "truth or all were called the same; at the right: patients of that truth. "
        f"{rule} One training seed."
    )
    title = f"Who is missed, who is alarmed? {name_of(condition)}, {dataset_name(dataset)}"
    fig = page(0.95 + 0.74 * len(methods), title, foot, notes)
    panels = fig.subplots(len(methods), len(keys), squeeze=False)
    for row, method in zip(panels, methods, strict=True):
        for ax, (attribute, level) in zip(row, keys, strict=True):
            own = of_level(table[table["method"] == method], attribute, level)
            _confusion(ax, own, classes)
            if ax in panels[0]:
                ax.set_title("All" if attribute == "overall" else level, fontsize=7.5)
        row[0].set_ylabel(method_name(method).replace(" ", "\n"), fontsize=7)
    return fig


def _confusion(ax: Axes, table: Rows, classes: Sequence[str]) -> None:
    """One field per truth and call; its strength is the share."""
    few = len(classes) < 3
    cells = table.assign(words=[_share(row, few) for _, row in table.iterrows()])
    square, words = (
        cells.pivot(index="truth", columns="called", values=name).reindex(
            index=list(classes), columns=list(classes)
        )
        for name in ("value", "words")
    )
    blank: Any = {"xticklabels": False, "yticklabels": False}
    heat(ax, square.astype(float).fillna(0.0), words, vmin=0, vmax=1.6, **blank)  # a count: white
    ax.set(xlabel="", ylabel="", aspect="equal")
    for text in ax.texts:
        text.set(fontsize=6 if few else 4.5, color="black")
    for y, truth in enumerate(classes):
        n = int(table.loc[table["truth"] == truth, "n"].max())
        ax.text(len(classes) + 0.06, y + 0.5, f"{n}", va="center", fontsize=6, color=MUTED)


def _share(row: Any, few: bool) -> str:
    value, low, high = (float(row[name]) for name in ("value", "low", "high"))
    if not (np.isfinite(value) and np.isfinite(low)):
        return f"{int(row['count'])}"
    return f"{100 * value:.0f}%" + few * f"\n{100 * low:.0f}-{100 * high:.0f}"


# -- slopes: real, then each method ----------------------------------------------------------


@figure("fig_slopes")
def fig_slopes(
    table: Rows,
    lines: Sequence[tuple[str, str]],
    *,
    title: str,
    foot: str = "",
    notes: Sequence[str] = (),
) -> Figure:
    """A line per level from real images to each method: a row of panels per metric.

    Of one classifier; ``lines`` are (condition, metric), metrics on the scale of a share. The data
    set's name is added to the title, the meaning of the marks to the foot.
    """
    columns = ("method", "seeds", "condition", "attribute", "level", "metric", "n", "value")
    dataset = require(table, ("dataset", *columns, "low", "high"), "fig_slopes")
    shown, _ = means_and_seeds(table, ["method"])
    for condition, metric in lines:
        if not ((shown["condition"] == condition) & (shown["metric"] == metric)).any():
            raise InputError(f"fig_slopes: the table has no {metric!r} of {condition!r}")
    conditions = list(dict.fromkeys(condition for condition, _ in lines))
    attributes = [name for name in attributes_of(shown) if name not in set(shown["condition"])]
    text = (
        f"{_classifier(table, 'fig_slopes')}{foot} {interval_text(table)} In brackets: patients "
        "behind a value (fewest)."
    )
    words = f"{name_of(conditions[0])}, " if len(conditions) == 1 else ""
    fig = page(0.95 + 1.7 * len(lines), f"{title} {words}{dataset_name(dataset)}", text, notes)
    panels = fig.subplots(len(lines), len(attributes), squeeze=False, sharey="row")
    for row, (condition, metric) in zip(panels, lines, strict=True):
        own = shown[(shown["condition"] == condition) & (shown["metric"] == metric)]
        _slope_row(row, own, attributes, ordered_methods(shown["method"]))
        front = "" if words else f"{name_of(condition)}\n"
        row[0].set_ylabel(front + name_of(metric).replace(" at ", "\nat "))
    for ax, attribute in zip(panels[0], attributes, strict=True):
        ax.set_title(name_of(attribute), loc="left", pad=15)
    for ax in panels[:-1].flat:
        ax.set_xticklabels([])
    return fig


def _slope_row(
    axes: Sequence[Axes], table: Rows, attributes: Sequence[str], methods: Sequence[str]
) -> None:
    """A panel per attribute, on one scale that spans at least ``LEAST_SPAN``."""
    names = [method_name(name).replace(" ", "\n", 1) for name in methods]
    for ax, attribute in zip(axes, attributes, strict=True):
        own = table[table["attribute"] == attribute]
        looks = counted_looks(own)
        missing = level_paths(ax, own, "method", methods, looks)
        name_missing(ax, missing)
        ax.tick_params(axis="x", length=0, labelsize=6.7)
        ax.set_xticks(range(len(methods)), names)
        panel_legend(ax, list(looks.values()))
    low, high = np.clip(axes[0].get_ylim(), -0.01, 1.01)  # of a share: no room beyond 0 and 1
    lack = max(0.0, LEAST_SPAN - (high - low))  # noise in the fourth digit is no slope
    low = max(-0.01, low - lack)
    axes[0].set_ylim(low, max(high, low + LEAST_SPAN))


# -- demographic probe -----------------------------------------------------------------------


@figure("fig_probe")
def fig_probe(table: Rows, notes: Sequence[str] = ()) -> Figure:
    """AUC of linear probes: a row of panels per feature space, a column per training source."""
    columns = ("method", "features", "trained_on", "attribute", "level", "metric", "n", "value")
    dataset = require(table, ("dataset", *columns, "low", "high"), "fig_probe")
    chosen, _ = means_and_seeds(table[table["metric"] == "probe_auc"], ["method"])
    if chosen.empty:
        raise Nothing("fig_probe: the table has no metric 'probe_auc'")
    rows, spaces = level_rows(chosen), in_order(chosen, "features")
    looks = {method: look_of(method) for method in ordered_methods(chosen["method"])}
    counts = sorted({int(n) for n in chosen["n"]})
    many = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    foot = (
        "AUC of a logistic regression that tells a level from the others (bold: mean over the "
        "attribute's levels). Dashed: guessing. Trained on training images, tested on "
        f"images of n = {many} test patients. {interval_text(chosen)} What a level has more "
        "often, as a disease, can be read too."
    )
    height = 0.95 + len(spaces) * (0.5 + 0.2 * len(rows))
    title = f"Can the group be read from an image? {dataset_name(dataset)}"
    fig = page(height, title, foot, notes, list(looks.values()))
    headings = {"own": "trained on the same kind of image", "real": "trained on real images"}
    panels = fig.subplots(len(spaces), 2, squeeze=False, sharex=True, sharey=True)
    for line, space in zip(panels, spaces, strict=True):
        for ax, (source, heading) in zip(line, headings.items(), strict=True):
            fits = (chosen["trained_on"] == source) | (chosen["method"] == "real")
            forest(ax, chosen[fits & (chosen["features"] == space)], rows, looks, null=0.5)
            ax.set_title(f"{space_title(space)} features,\n{heading}", loc="left", fontsize=7.5)
        line[0].set_yticks(
            range(len(rows)), [name_of(a) if level == "all" else level for a, level in rows]
        )
        for text, (_, level) in zip(line[0].get_yticklabels(), rows, strict=False):
            text.set_fontweight("bold" if level == "all" else "normal")
    for ax in panels[-1]:
        ax.set_xlabel("AUC")
    return fig
