"""Pictures of the privacy audits: is anything remembered, and of whom?"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.audit.seeds import means_and_seeds
from fairdiff_lib.show.panels import interval_text, level_rows
from fairdiff_lib.settings.names import name_of
from fairdiff_lib.show.panels import require, whisker
from fairdiff_lib.show.style import MUTED, STYLE, dataset_name, look_of, ordered_methods, page
from fairdiff_lib.audit.memory import ALARMED, AUC, FOUND
from fairdiff_lib.audit.memory import NEARER, NO_SIGNAL

Rows = pd.DataFrame
ROW = 0.27  # inches that a level takes
STEP = 0.24  # between two methods, in rows


def fig_privacy(table: Rows, *, false_positives: float, notes: Sequence[str] = ()) -> Figure:
    """Both audits by level, a panel per number, with what no memory would give.

    Parameters
    ----------
    table : DataFrame
        dataset, method, seeds, attribute, level, metric, features, n, value, low, high, as
        ``privacy_study.collect_privacy`` makes.
    false_positives : float
        That membership inference's threshold was set for.
    notes : sequence of str
        Warnings to print on the page.

    Raises
    ------
    InputError
        The table lacks a column or a metric.
    """
    columns = ("method", "seeds", "attribute", "level", "metric", "features", "n", "value")
    dataset = require(table, ("dataset", *columns, "low", "high"), "fig_privacy")
    shown, _ = means_and_seeds(table, ["method"])
    lines, methods = level_rows(shown), ordered_methods(shown["method"])
    panels = _panels(shown, false_positives)
    foot = (
        "Dashed: nothing remembered. Bars: false positives of the same level, which chance alone "
        "would find. Nearer to training: against as many held-out subjects, with intervals over "
        "these references; real images: the test images themselves, a control. In brackets: test "
        "prompts; other panels rest on all real images. "
        f"{interval_text(shown)}"
    )
    title = f"Are training images remembered? {dataset_name(dataset)}"
    fig = page(1.3 + ROW * len(lines), title, foot, notes, [look_of(one) for one in methods])
    with matplotlib.rc_context(STYLE):
        axes = fig.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for ax, (words, own, chance) in zip(axes, panels, strict=True):
            _panel(ax, own, lines, methods)
            ax.axvline(chance, color=MUTED, lw=0.8, ls=(0, (4, 3)), zorder=0)
            ax.set_title(words, loc="left")
            ax.set_xlabel("AUC" if "AUC" in words else f"share of {_counted(words)}", fontsize=7)
        alarmed = shown[shown["metric"] == ALARMED]
        _alarms(axes[-1], alarmed, lines, methods)
        _name_rows(axes[0], shown[shown["metric"] == NEARER], lines)
    return fig


def _counted(words: str) -> str:
    return "members" if words.startswith("Members") else "images"


def _panels(shown: Rows, false_positives: float) -> list[tuple[str, Rows, float]]:
    """Title, rows and chance's value of every panel."""
    near = shown[shown["metric"] == NEARER]
    panels = [
        (f"Nearer to training\n({space})", near[near["features"] == space], NO_SIGNAL)
        for space in dict.fromkeys(near["features"])
    ]
    words = f"Members found, at\n{100 * false_positives:g}% false positives"
    for metric, title, chance in (
        (AUC, "Membership\nAUC", 0.5),
        (FOUND, words, false_positives),
    ):
        panels.append((title, shown[shown["metric"] == metric], chance))
    empty = [title for title, own, _ in panels if own.empty]
    if near.empty or empty:
        lacking = NEARER if near.empty else empty[0].replace("\n", " ")
        raise InputError(f"fig_privacy: the table has no rows of {lacking!r}")
    return panels


def _place(at: int, method: str, methods: Sequence[str]) -> float:
    return at + STEP * (methods.index(method) - (len(methods) - 1) / 2)


def _panel(ax: Axes, own: Rows, lines: Sequence[tuple[str, str]], methods: Sequence[str]) -> None:
    """A line per level, methods above each other; a missing number is said in words."""
    for at, key in enumerate(lines):
        rows = own[(own["attribute"] == key[0]) & (own["level"] == key[1])]
        for _, row in rows.iterrows():
            place = _place(at, str(row["method"]), methods)
            whisker(ax, row, place, look_of(str(row["method"])), across=True)
        if not np.isfinite(rows["value"]).any():
            ax.text(0.98, at, "not estimable", transform=ax.get_yaxis_transform(), ha="right",
                    va="center", fontsize=6.3, color=MUTED)  # fmt: skip
        if at and key[0] != lines[at - 1][0]:
            ax.axhline(at - 0.5, color="#dddddd", lw=0.6, zorder=0)
    ax.set_ylim(len(lines) - 0.5, -0.5)
    ax.grid(axis="x", color="#eeeeee", lw=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)
    ax.locator_params(axis="x", nbins=5)


def _alarms(ax: Axes, own: Rows, lines: Sequence[tuple[str, str]], methods: Sequence[str]) -> None:
    """The level's own false-positive rate, as an upright bar."""
    for _, row in own.iterrows():
        at = _place(lines.index((row["attribute"], row["level"])), str(row["method"]), methods)
        colour = look_of(str(row["method"])).colour
        ax.plot([row["value"]], [at], "|", color=colour, ms=7, mew=1.4, alpha=0.7, zorder=1)
    ax.set_xlim(left=-0.005)


def _name_rows(ax: Axes, own: Rows, lines: Sequence[tuple[str, str]]) -> None:
    sizes = own.groupby(["attribute", "level"], sort=False)["n"].min()
    texts = [
        f"{'All' if key[0] == 'overall' else name_of(key[1])} ({sizes.get(key, 0)})"
        for key in lines
    ]
    ax.set_yticks(range(len(lines)), texts)
