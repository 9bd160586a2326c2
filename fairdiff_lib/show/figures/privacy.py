"""Notebook 14: is anything remembered, and of whom?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fairdiff_lib.audit.memory import ALARMED, AUC, FOUND, NEARER, NO_SIGNAL
from fairdiff_lib.audit.seeds import means_and_seeds
from fairdiff_lib.settings.names import space_title
from fairdiff_lib.show.front import Nothing, figure
from fairdiff_lib.show.panels import (
    Rows,
    beside,
    forest,
    in_order,
    interval_text,
    level_rows,
    of_level,
    require,
)
from fairdiff_lib.show.style import Look, dataset_name, look_of, ordered_methods, page

HEIGHT = 0.27  # inches that a level takes


@figure("fig_privacy")
def fig_privacy(table: Rows, *, false_positives: float, notes: Sequence[str] = ()) -> Figure:
    """Both audits by level, a panel per number, with what no memory would give.

    ``false_positives``: that membership inference's threshold was set for.
    """
    columns = ("method", "seeds", "attribute", "level", "metric", "features", "n", "value")
    dataset = require(table, ("dataset", *columns, "low", "high"), "fig_privacy")
    shown, _ = means_and_seeds(table, ["method"])
    near = shown[shown["metric"] == NEARER]
    if near.empty:
        raise Nothing(f"fig_privacy: the table has no rows of {NEARER!r}")
    found = f"Members found, at\n{100 * false_positives:g}% false alarms"
    panels = [
        *((f"Nearer to training\n{space_title(name)}", near[near["features"] == name], NO_SIGNAL,
           "images") for name in in_order(near, "features")),
        ("Membership\nAUC", shown[shown["metric"] == AUC], 0.5, ""),
        (found, shown[shown["metric"] == FOUND], false_positives, "members"),
    ]  # fmt: skip
    rows = level_rows(shown)
    looks = {method: look_of(method) for method in ordered_methods(shown["method"])}
    foot = (
        "Dashed: nothing remembered. Upright bars: false alarms in the same group, which chance "
        "alone would find. Nearer to training: beside as many held-out patients, intervals over "
        "these references; real images: the test images themselves, a control. In brackets: test "
        f"prompts; the other panels rest on all real images. {interval_text(shown)}"
    )
    title = f"Are training images remembered? {dataset_name(dataset)}"
    fig = page(1.3 + HEIGHT * len(rows), title, foot, notes, list(looks.values()))
    axes = fig.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for ax, (words, own, chance, counted) in zip(axes, panels, strict=True):
        forest(ax, own, rows, looks, null=chance)
        ax.set_title(words, loc="left")
        ax.set_xlabel(f"share of {counted}" if counted else "AUC", fontsize=7)
        ax.locator_params(axis="x", nbins=3)  # numbers that don't touch
    _alarms(axes[-1], shown[shown["metric"] == ALARMED], rows, looks)
    axes[0].set_yticks(range(len(rows)), [_named(near, *key) for key in rows])
    return fig


def _named(near: Rows, attribute: str, level: str) -> str:
    own = of_level(near, attribute, level)["n"]
    return f"{'All' if attribute == 'overall' else level} ({own.min() if len(own) else 0})"


def _alarms(
    ax: Axes, own: Rows, rows: Sequence[tuple[str, str]], looks: Mapping[str, Look]
) -> None:
    """The level's own false-positive rate, as an upright bar."""
    for at, key in enumerate(rows):
        for i, (method, look) in enumerate(looks.items()):
            value = of_level(own[own["method"] == method], *key)["value"]
            place = [at + beside(len(looks), i)] * len(value)
            ax.plot(value, place, "|", color=look.colour, ms=7, mew=1.4, alpha=0.7, zorder=1)
    ax.set_xlim(left=-0.005)
