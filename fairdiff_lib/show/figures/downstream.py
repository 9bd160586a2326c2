"""Notebook 07: AUC by group, by what the classifier was trained on (F5)."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

from fairdiff_lib.audit.seeds import means_and_seeds
from fairdiff_lib.settings.names import axis_name, classifier_name, name_of
from fairdiff_lib.show.front import Nothing, figure
from fairdiff_lib.show.panels import (
    ROW,
    Rows,
    forest,
    in_order,
    interval_text,
    level_rows,
    require,
)
from fairdiff_lib.show.style import STYLE, dataset_name, look_of, ordered_methods, page

GUESSING = 0.5


@figure("fig05")
def fig05(
    table: Rows, *, condition: str, metric: str = "auc", notes: Sequence[str] = ()
) -> Figure:
    """AUC of a condition by level: a panel per classifier, training sources side by side.

    Parameters
    ----------
    table : DataFrame
        dataset, source, seeds, classifier, condition, attribute, level, metric, n, value, low,
        high.
    condition, metric : str
        What is shown; all else is in the table.
    notes : sequence of str
        Warnings to print on the page.
    """
    columns = ("dataset", "source", "seeds", "classifier", "condition", "attribute", "level")
    dataset = require(table, (*columns, "metric", "n", "value", "low", "high"), "fig05")
    chosen = table[(table["condition"] == condition) & (table["metric"] == metric)]
    if chosen.empty:
        raise Nothing(f"fig05: the table has no {metric} of {condition}")
    shown, single = means_and_seeds(chosen, ["source", "classifier"])
    rows, classifiers = level_rows(shown), in_order(shown, "classifier")
    looks = {source: look_of(source) for source in ordered_methods(shown["source"])}
    foot = (
        "Rows: groups of real test patients (in brackets, how many). Colours: the images that the "
        f"classifier was trained on. Dashed: guessing. {interval_text(shown, seeds_drawn=True)}"
    )
    title = f"Which images train a fair classifier? {name_of(condition)}, {dataset_name(dataset)}"
    fig = page(1.2 + 1.5 * ROW * len(rows), title, foot, notes, list(looks.values()))
    with matplotlib.rc_context(STYLE):
        axes = fig.subplots(1, len(classifiers), squeeze=False, sharex=True, sharey=True)[0]
        for ax, classifier in zip(axes, classifiers, strict=True):
            own = shown[shown["classifier"].astype(str) == classifier]
            forest(ax, own, rows, looks, column="source", null=GUESSING, single=single[
                single["classifier"].astype(str) == classifier
            ])  # fmt: skip
            ax.set_title(classifier_name(classifier), loc="left")
            ax.set_xlabel(axis_name(metric))
    return fig
