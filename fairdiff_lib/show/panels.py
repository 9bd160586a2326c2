"""What panels are made of, drawn once: dots with whiskers, rows of levels, lines, heat maps.

A panel shows numbers that a table holds; nothing is estimated here. Seaborn draws what has no
interval of its own (lines, heat maps, single seeds); an interval is drawn as the table gives it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fairdiff_lib.audit.seeds import LEAST_RUNS
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.names import NOT_ESTIMABLE, axis_name, name_of
from fairdiff_lib.show.style import MUTED, STYLE, Look, handles, level_looks

Rows = pd.DataFrame
LEVEL, EVERYONE = Look("", "#0072b2", "o"), Look("", "#000000", "D")
ROW = 0.21  # inches that a level takes
FLOOR = "#dcdcdc"


def require(table: Rows, columns: Sequence[str], what: str) -> str:
    """Refuse a table without rows or columns; return the one data set that it holds."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise InputError(f"{what}: the table has no column {', '.join(missing)}")
    if table.empty:
        raise InputError(f"{what}: the table has no row")
    datasets = sorted(set(table["dataset"].astype(str))) if "dataset" in table else [""]
    if len(datasets) != 1:
        raise InputError(f"{what}: expected one dataset, found {', '.join(datasets)}")
    return datasets[0]


def in_order(table: Rows, column: str) -> list[str]:
    """The values of a column, each once, as they come."""
    return list(dict.fromkeys(table[column].astype(str)))


def attributes_of(table: Rows) -> list[str]:
    """The table's attributes, without "overall"."""
    return [name for name in in_order(table, "attribute") if name != "overall"]


def counted_looks(table: Rows, summed: bool = False) -> dict[str, Look]:
    """Levels of one attribute with the smallest n behind any value, or the sum over its bins."""
    levels, groups = in_order(table, "level"), table.groupby("level")["n"]
    n = groups.sum() if summed else groups.min()
    looks = level_looks([f"{level} ({int(n[level])})" for level in levels])
    return dict(zip(levels, looks, strict=True))


def level_rows(table: Rows) -> list[tuple[str, str]]:
    """(attribute, level) pairs in the table's own order."""
    pairs = table[["attribute", "level"]].drop_duplicates()
    return list(pairs.itertuples(index=False, name=None))


def of_level(table: Rows, attribute: str, level: str) -> Rows:
    """Rows of one level."""
    return table[(table["attribute"] == attribute) & (table["level"] == level)]


def stacked(fig: Figure, rows: int) -> list[Any]:
    """Rows of panels, each with its own columns."""
    return [fig.subfigures(1, 1)] if rows == 1 else list(np.asarray(fig.subfigures(rows, 1)))


def interval_text(table: Rows, *, seeds_drawn: bool = False, confidence: float = 0.95) -> str:
    """What whiskers mean, from the table's own columns, and dots of single seeds if drawn."""
    share = f"{confidence:.0%} interval"
    if "seeds" in table and table["seeds"].astype(str).str.contains(",").any():
        small = " Small dots: single seeds." if seeds_drawn else ""
        several = table["seeds"].astype(str).str.count(",").max() + 1 >= LEAST_RUNS
        whom = "for new patients and new training runs" if several else "over subjects"
        return f"Dots: mean over training seeds, with {share} {whom}.{small}"
    return f"Dots: one training seed, with {share} over subjects, not over training runs."


# -- marks -----------------------------------------------------------------------------------


def whisker(
    ax: Axes, row: Any, at: float, look: Look, *, across: bool = False, size: float = 4.2
) -> None:
    """One dot with its interval: upright, or lying when ``across``; NaN draws nothing."""
    value, low, high = (float(row[key]) for key in ("value", "low", "high"))
    if not np.isfinite(value):
        return
    if np.isfinite(low) and np.isfinite(high):
        ends, places = [low, high], [at, at]
        line = (ends, places) if across else (places, ends)
        ax.plot(*line, color=look.colour, lw=1.1, solid_capstyle="butt", zorder=2)
    point = ([value], [at]) if across else ([at], [value])
    ax.plot(*point, look.marker, color=look.colour, ms=size, mec="white", mew=0.4, zorder=3)


def beside(count: int, i: int, room: float = 0.7, most: float = 0.22) -> float:
    """Where the i-th of ``count`` marks stands beside its place."""
    step = min(most, room / max(count, 1))
    return step * (i - (count - 1) / 2)


def whiskers(
    ax: Axes,
    table: Rows,
    at: float,
    looks: Mapping[str, Look],
    *,
    column: str = "method",
    across: bool = False,
) -> None:
    """The marks of one place side by side, a look per value of ``column``; words where none is."""
    if not np.isfinite(table["value"].astype(float)).any():
        not_estimable(ax, at, across=across)
    for i, (name, look) in enumerate(looks.items()):
        for _, row in table[table[column].astype(str) == name].iterrows():
            whisker(ax, row, at + beside(len(looks), i), look, across=across)


def not_estimable(ax: Axes, at: float, *, across: bool = False) -> None:
    """Say so at a place without an estimate: a gap is no zero."""
    text: dict[str, Any] = {"fontsize": 6.5, "color": MUTED}
    if across:
        ax.text(0.99, at, NOT_ESTIMABLE, transform=ax.get_yaxis_transform(), ha="right",
                va="center", **text)  # fmt: skip
        return
    ax.text(at, 0.03, NOT_ESTIMABLE, transform=ax.get_xaxis_transform(), rotation=90,
            ha="center", **text)  # fmt: skip


def none_here(ax: Axes, words: str = "none recorded") -> None:
    """Say in a panel without data that it has none."""
    ax.text(0.5, 0.5, words, transform=ax.transAxes, ha="center", color=MUTED)


def shade(ax: Axes, at: float, low: float, high: float, *, across: bool = False) -> None:
    """A grey band from low to high behind one place; NaN draws nothing."""
    if np.isfinite(low) and np.isfinite(high):
        fill = ax.fill_betweenx if across else ax.fill_between
        fill([at - 0.4, at + 0.4], low, high, color=FLOOR, lw=0, zorder=0)


def at_zero(ax: Axes, *, across: bool = False) -> None:
    """A thin line at zero and a faint grid along the numbers."""
    (ax.axvline if across else ax.axhline)(0, color="#bbbbbb", lw=0.6, zorder=0)
    ax.grid(axis="x" if across else "y")


# -- panels ----------------------------------------------------------------------------------


def name_rows(ax: Axes, labels: Sequence[str], *, breaks: Sequence[float] = ()) -> None:
    """Labels down the left side, the first on top, thin lines between blocks."""
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.set_yticks(range(len(labels)), list(labels))
    ax.tick_params(axis="y", length=0)
    for at in breaks:
        ax.axhline(at, color="#dddddd", lw=0.6, zorder=0)


def forest(
    ax: Axes,
    table: Rows,
    rows: Sequence[tuple[str, str]],
    looks: Mapping[str, Look],
    *,
    column: str = "method",
    null: float = 0.0,
    single: Rows | None = None,
) -> None:
    """A row per (attribute, level), lying whiskers of every value of ``column`` in it.

    ``null`` is the value that means no effect, dashed where it is not zero; ``single`` are seeds
    behind the means, as small dots. Labels name a level's smallest n, where the table has n.
    """
    names = []
    for at, (attribute, level) in enumerate(rows):
        own = of_level(table, attribute, level)
        whiskers(ax, own, at, looks, column=column, across=True)
        each = own.iloc[:0] if single is None else of_level(single, attribute, level)
        for i, (name, look) in enumerate(looks.items()):
            chosen = each[each[column].astype(str) == name]
            seeds(ax, chosen, at + beside(len(looks), i), look, across=True)
        counted = f" ({own['n'].min()})" if "n" in own and len(own) else ""
        names.append(("All" if attribute == "overall" else level) + counted)
    if null == 0:
        at_zero(ax, across=True)
    else:
        ax.axvline(null, color=MUTED, lw=0.8, ls=(0, (4, 3)), zorder=0)
        ax.grid(axis="x")
    breaks = [i - 0.5 for i in range(1, len(rows)) if rows[i][0] != rows[i - 1][0]]
    name_rows(ax, names, breaks=breaks)


def dot_rows(table: Rows) -> list[tuple[str, pd.Series[Any] | None]]:
    """Lines of the dot plot: a heading per attribute (no row), a label and row per level."""
    lines: list[tuple[str, pd.Series[Any] | None]] = []
    for attribute, own in table.groupby("attribute", sort=False):
        if attribute == "overall":
            lines += [("All", row) for _, row in own.iterrows()]
            continue
        lines.append((name_of(str(attribute)), None))
        lines += [(str(row["level"]), row) for _, row in own.iterrows()]
    return lines


def draw_dots(ax: Axes, table: Rows, counted: bool = True) -> None:
    """One generator's levels below each other: dot, interval, n, and the floor shaded behind."""
    lines = dot_rows(table)
    for at, (_, row) in enumerate(lines):
        if row is None:
            ax.axhline(at - 0.5, color="#dddddd", lw=0.6, zorder=0)
            continue
        floor = [float(row.get(f"floor_{side}", np.nan)) for side in ("low", "high")]
        shade(ax, at, *floor, across=True)
        whisker(ax, row, at, EVERYONE if row["attribute"] == "overall" else LEVEL, across=True)
        if not np.isfinite(row["value"]):
            not_estimable(ax, at, across=True)
        if counted:
            ax.text(1.01, at, f"n={int(row['n'])}", fontsize=7, va="center", color=MUTED,
                    transform=ax.get_yaxis_transform())  # fmt: skip
    at_zero(ax, across=True)
    name_rows(ax, [text for text, _ in lines])
    for label, (_, row) in zip(ax.get_yticklabels(), lines, strict=True):
        label.set_fontweight("bold" if row is None else "normal")
    ax.set_xlabel(axis_name(str(table["metric"].iloc[0])))


def dots_foot(table: Rows, unit: str = "subject", confidence: float = 0.95, whom: str = "") -> str:
    """What the marks of a dot plot mean; ``whom``: the intervals hold for more than other units."""
    known = "floor_low" in table and table["floor_low"].notna().any()
    band = "Grey: what chance alone gives between two halves of the real images. " if known else ""
    return (
        f"Dots: value with {confidence:.0%} interval {f'for {whom}' if whom else f'over {unit}s'}. "
        f"n: {unit}s. {band}"
        "Overlapping intervals are no test: the table of differences is."
    )


def dots_beside(fig: Figure, tables: Sequence[Rows], bins: int | None = None) -> None:
    """A dot plot per metric of the same levels, side by side; n stands at the last one."""
    axes = fig.subplots(1, len(tables), squeeze=False)[0]
    for ax, table in zip(axes, tables, strict=True):
        draw_dots(ax, table, counted=ax is axes[-1])
        if ax is not axes[0]:  # not sharey: inner axes would have no labels to colour
            ax.tick_params(labelleft=False)
        if bins:
            ax.locator_params(axis="x", nbins=bins)  # numbers that don't touch


def narrow_dots(tables: Sequence[Rows], width: float) -> Figure:
    """The dot plots alone, ``width`` inches wide, for a card that brings its own words."""
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(width, 0.55 + ROW * len(dot_rows(tables[0]))), layout="constrained")
        dots_beside(fig, tables, bins=5 if len(tables) == 1 else 3)
        for ax in fig.axes if len(tables) > 1 else []:  # side by side, names would touch
            ax.set_xlabel(ax.get_xlabel().replace(", ", ",\n", 1).replace(" (", "\n(", 1))
    return fig


def lines(
    ax: Axes, table: Rows, x: str, looks: Mapping[str, Look], *, column: str = "level", **own: Any
) -> None:
    """``value`` against a column, a line per value of ``column`` (a thin one per seed)."""
    table = table.astype({column: str})
    known = {name: look for name, look in looks.items() if name in set(table[column])}
    if table.empty or not np.isfinite(table["value"].astype(float)).any():
        none_here(ax)
        return
    one_each: dict[str, Any] = {"units": "seed", "estimator": None} if "seed" in table else {}
    sns.lineplot(
        table, x=x, y="value", hue=column, hue_order=list(known), ax=ax, errorbar=None,
        palette={name: look.colour for name, look in known.items()}, legend=False,
        **one_each, **own,
    )  # fmt: skip
    ax.set_ylabel("")


def level_paths(
    ax: Axes, table: Rows, column: str, places: Sequence[Any], looks: Mapping[str, Look]
) -> list[str]:
    """A line of whiskers per level over a column's values, side by side; levels without a value."""
    missing = []
    for k, (level, look) in enumerate(looks.items()):
        own = table[table["level"] == level].set_index(column).reindex(list(places))
        xs = np.arange(len(places)) + beside(len(looks), k, most=0.13)
        if not np.isfinite(own["value"].astype(float)).any():
            missing.append(level)
        ax.plot(xs, own["value"], color=look.colour, lw=0.9, alpha=0.75, zorder=1)
        for x, (_, row) in zip(xs, own.iterrows(), strict=True):
            whisker(ax, row, float(x), look)
    ax.set_xlim(-0.45, len(places) - 0.55)
    ax.grid(axis="y")
    return missing


def name_missing(ax: Axes, levels: Sequence[str]) -> None:
    """Say in a panel's corner which levels have no estimate."""
    if levels:
        ax.text(0.99, 0.98, f"{', '.join(levels)}: {NOT_ESTIMABLE}", transform=ax.transAxes,
                ha="right", va="top", fontsize=6.3, color=MUTED)  # fmt: skip


def heat(
    ax: Axes,
    square: Rows,
    words: Rows | Callable[[float], str] | None = None,
    *,
    middle: float | None = None,
    cmap: str = "",
    **own: Any,
) -> None:
    """A heat map of numbers (NaN: white) with ``words``, or three digits, in each field.

    Index and columns are the labels; from ``middle``, which is white, colours go both ways.
    """
    text = words if isinstance(words, pd.DataFrame) else square.map(words or "{:.3g}".format)
    sns.heatmap(
        square.astype(float), ax=ax, annot=text.to_numpy(), fmt="", cbar=False, center=middle,
        cmap=cmap or ("PuOr_r" if middle is not None else "Blues"), linewidths=0.6,
        annot_kws={"fontsize": 6.5}, **own,
    )  # fmt: skip
    ax.tick_params(length=0)
    ax.set(xlabel=square.columns.name or "", ylabel=square.index.name or "")


def seeds(ax: Axes, table: Rows, at: float, look: Look, *, across: bool = False) -> None:
    """Single seeds as small dots at a place."""
    values = table["value"].to_numpy()
    places = np.full(len(values), at)
    ax.plot(*((values, places) if across else (places, values)), ".", color=look.colour, ms=2.5,
            alpha=0.6)  # fmt: skip


def panel_legend(ax: Axes, looks: Sequence[Look]) -> None:
    """A legend in one line between a panel's title and its marks; call after the title is set."""
    ax.legend(
        handles=handles(looks), loc="lower left", bbox_to_anchor=(-0.03, 0.99), ncols=9,
        fontsize=6.5, handlelength=0.7, handletextpad=0.3, columnspacing=0.8, borderpad=0.2,
    )  # fmt: skip
    ax.set_title(ax.get_title(loc="left"), loc="left", pad=15)
