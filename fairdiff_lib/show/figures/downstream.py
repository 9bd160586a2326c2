"""Notebook 07: equity-scaled metrics of classifiers, by what they were trained on (F5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fairdiff_lib.audit.seeds import means_and_seeds
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.names import axis_name, classifier_name, name_of
from fairdiff_lib.show.figures.cohort import SIDE_BY_SIDE
from fairdiff_lib.show.front import figure
from fairdiff_lib.show.panels import Rows, in_order, interval_text, name_rows, require, whiskers
from fairdiff_lib.show.style import STYLE, Look, dataset_name, look_of, ordered_methods, page


@figure("fig05")
def fig05(
    table: Rows,
    *,
    metrics: Sequence[str] = ("es_auc",),
    notes: Sequence[str] = (),
    confidence: float = 0.95,
) -> Figure:
    """Equity-scaled metrics of the downstream classifiers, training sources side by side.

    Parameters
    ----------
    table : DataFrame
        Columns dataset, source, seeds (as in ``fig03``), classifier, condition, attribute,
        level, metric, n, value, low, high.
    metrics : sequence of str
        A row of panels each, and for each classifier; a panel per condition. Where more than
        four are in the table, those that generated images were asked for.
    notes : sequence of str
        Warnings to print on the page.
    confidence : float
        Of the intervals.
    """
    columns = ("dataset", "source", "seeds", "classifier", "condition", "attribute", "metric")
    dataset = require(table, (*columns, "n", "value", "low", "high"), "fig05")
    chosen = table[table["metric"].isin(metrics)]
    if chosen.empty:
        raise InputError(f"fig05: the table has none of the metrics {', '.join(metrics)}")
    part, _ = means_and_seeds(chosen, ["source", "classifier"])
    of_made = part.loc[part["source"] != "real", "condition"]
    if part["condition"].nunique() > SIDE_BY_SIDE and part["condition"].isin(of_made).any():
        part = part[part["condition"].isin(of_made)]
    panels = [(metric, name) for metric in metrics for name in in_order(part, "classifier")]
    conditions, attributes = in_order(part, "condition"), in_order(part, "attribute")
    looks = {source: look_of(source) for source in ordered_methods(part["source"])}
    foot = _foot(part, confidence)
    if set(conditions) - set(of_made) and len(looks) > 1:
        foot += " Real images alone: the prompt does not name that condition."
    height = 1.2 + len(panels) * (0.55 + 0.42 * len(attributes))
    title = f"Which images train a fair classifier? {dataset_name(dataset)}"
    fig = page(height, title, foot, notes, list(looks.values()))
    with matplotlib.rc_context(STYLE):
        axes = fig.subplots(len(panels), len(conditions), squeeze=False, sharex="row", sharey=True)
        for i, (metric, classifier) in enumerate(panels):
            own = part[(part["metric"] == metric) & (part["classifier"] == classifier)]
            for ax, condition in zip(axes[i], conditions, strict=True):
                _panel(ax, own[own["condition"] == condition], attributes, looks)
                ax.set_xlabel(axis_name(metric))
                if i == 0:
                    ax.set_title(name_of(condition), loc="left")
            axes[i, 0].set_ylabel(classifier_name(str(classifier)), fontsize=6.5)
            _end_at_one(axes[i])
    return fig


def _foot(table: Rows, confidence: float) -> str:
    """What the marks mean, and what is missing."""
    counts = sorted({int(n) for n in table["n"]})
    many = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    foot = (
        "An equity-scaled M is M / (1 + sum over levels of |M of the level - M|): 1 is best "
        "(dashed; intervals are cut there). "
        f"Tested on real images of {many} subjects. {interval_text(table, confidence=confidence)}"
    )
    if (np.isfinite(table["value"]) & ~np.isfinite(table["low"])).any():
        foot += " No bar: not estimable, as where a level has one subject of a class."
    return foot


def _end_at_one(axes: Sequence[Axes]) -> None:
    """One scale for a row of panels: whiskers end at 1, which is best, with a line there."""
    low = min(ax.get_xlim()[0] for ax in axes)
    for ax in axes:
        ax.set_xlim(low, 1.02)
        ax.axvline(1, color="#999999", lw=0.7, ls=(0, (4, 3)), zorder=0)


def _panel(
    ax: Axes, table: Rows, attributes: Sequence[str], looks: Mapping[str, Look]
) -> None:
    """A row per attribute, a lying whisker per source."""
    for at, attribute in enumerate(attributes):
        own = table[table["attribute"] == attribute]
        whiskers(ax, own, at, looks, column="source", across=True)
    name_rows(ax, [name_of(a) for a in attributes])
    ax.grid(axis="x")
