"""Notebook 01: who is in the cohort (F1)."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.names import level_name, name_of
from fairdiff_lib.show.front import Nothing, figure
from fairdiff_lib.show.panels import (
    Rows,
    beside,
    in_order,
    level_rows,
    name_rows,
    of_level,
    panel_legend,
    require,
    stacked,
    whisker,
)
from fairdiff_lib.show.style import (
    SPLITS,
    WIDTH,
    Look,
    dataset_name,
    is_simulated,
    level_looks,
    look_of,
    ordered_methods,
    page,
    wrap,
)

SIDE_BY_SIDE = 4  # conditions that a page has room for
LETTERS = 112  # of legends side by side


@figure("fig01")
def fig01(table: Rows, notes: Sequence[str] = (), *, confidence: float = 0.95) -> Figure:
    """Cohort: subjects by level and split, and prevalence of every condition."""
    columns = ("split", "attribute", "level", "condition", "condition_level", "metric", "value")
    dataset = require(table, ("dataset", *columns, "low", "high"), "fig01")
    shares = table[table["metric"] == "prevalence"]
    conditions, rows = in_order(shares, "condition"), level_rows(table)
    foot = f"Bars: subjects. Dots: share of subjects, with {confidence:.0%} interval (Wilson)."
    shown = {name: _shown(shares, name) for name in conditions}
    longest = max(sum(len(level) + 3 for level in levels) for levels in shown.values())
    many = max(1, min(SIDE_BY_SIDE, LETTERS // longest))
    rest = [conditions[i : i + many] for i in range(1, len(conditions), many)]
    height = 1.5 + 0.2 * len(rows) * (1 + len(rest)) + 0.5 * len(rest)
    fig = page(height, f"Who is in the cohort? {dataset_name(dataset)}", foot, notes)
    parts = stacked(fig, 1 + len(rest))
    first, second = parts[0].subplots(1, 2)
    _counts(first, table[table["metric"] == "count"], rows)
    of_first = shares[shares["condition"] == conditions[0]]
    last = in_order(of_first, "condition_level")[-1]
    per_split = of_first[of_first["condition_level"] == last]
    _shares(second, per_split, rows, "split", {k: SPLITS[k] for k in SPLITS}, conditions[0])
    second.set_xlabel(f"share of subjects: {last}")
    for sub, line in zip(parts[1:], rest, strict=True):
        below = sub.subplots(1, len(rest[0]), squeeze=False)[0]
        for ax, condition in zip(below, line, strict=False):
            own = shares[(shares["condition"] == condition) & (shares["split"] == "all")]
            looks = {x.label: x for x in level_looks(shown[condition])}
            _shares(ax, own, rows, "condition_level", looks, condition)
            ax.set_xlabel("share of subjects, all splits")
        for ax in below[len(line) :]:
            ax.remove()
    for sub in parts:
        _name_levels(sub.axes, rows)
    return fig


def _shown(shares: Rows, condition: str) -> list[str]:
    """Levels of a condition whose shares are drawn: of two the second, as the first is the rest."""
    levels = in_order(shares[shares["condition"] == condition], "condition_level")
    return levels[1:] if len(levels) == 2 else levels


def _name_levels(axes: Sequence[Axes], rows: Sequence[tuple[str, str]]) -> None:
    """Level names down the first panel, thin lines between the attributes in all."""
    labels = ["All" if a == "overall" else level for a, level in rows]
    breaks = [i - 0.5 for i in range(1, len(rows)) if rows[i][0] != rows[i - 1][0]]
    for i, ax in enumerate(axes):
        name_rows(ax, labels if i == 0 else [""] * len(rows), breaks=breaks)


def _counts(ax: Axes, table: Rows, rows: Sequence[tuple[str, str]]) -> None:
    """Stacked bars of subjects, a shade per split, the three counts written at the end."""
    own = table[table["split"].isin(SPLITS)]
    own = own.assign(
        place=[rows.index(key) for key in zip(own["attribute"], own["level"], strict=True)]
    )
    sns.histplot(
        own, y="place", weights="value", hue="split", hue_order=list(SPLITS)[::-1], discrete=True,
        multiple="stack", shrink=0.62, palette={k: look.colour for k, look in SPLITS.items()},
        alpha=1, lw=0, legend=False, ax=ax,
    )  # fmt: skip
    longest = 0.0
    for at, key in enumerate(rows):
        values = of_level(own, *key).set_index("split")["value"]
        counts = [float(values.get(split, 0.0)) for split in SPLITS]
        ax.text(sum(counts), at, "  " + " | ".join(f"{x:,.0f}" for x in counts), va="center",
                fontsize=6.5)  # fmt: skip
        longest = max(longest, sum(counts))
    ax.set_xlim(0, longest * 1.45)
    ax.set(xlabel="subjects: training | validation | test", ylabel="")
    ax.set_title("Size", loc="left")


def _shares(
    ax: Axes,
    table: Rows,
    rows: Sequence[tuple[str, str]],
    column: str,
    looks: dict[str, Look],
    condition: str,
) -> None:
    """Share of subjects by level, a mark per value of ``column``."""
    for at, key in enumerate(rows):
        for i, (name, look) in enumerate(looks.items()):
            own = of_level(table, *key)
            for _, row in own[own[column] == name].iterrows():
                whisker(ax, row, at + beside(len(looks), i), look, across=True)
    ax.set_xlim(0, 1)
    ax.set_title(name_of(condition), loc="left")
    panel_legend(ax, list(looks.values()))


LARGEST = 2.2  # x a picture's own size, at 150 dots an inch: more only shows its pixels
SMALLEST = 0.55  # inches
LEAST_ROOM = 1.9  # inches that prompts beside the pictures need
LETTERS_AN_INCH = 18  # of a prompt


def may_show_real(dataset: str, show_real: bool = False) -> bool:
    """Whether "real" images of a dataset may be drawn: simulated ones always, others on request."""
    return is_simulated(dataset) or show_real


def side_of(images: np.ndarray, room: float) -> float:
    """Inches of a picture's side: as large as there is room, not enlarged to a blur."""
    return min(room, max(SMALLEST, LARGEST * int(images.shape[-1]) / 150))


@figure("fig02")
def fig02(
    images: Mapping[str, np.ndarray],
    columns: Sequence[str],  # name of each group
    *,
    dataset: str,  # decides the title, and whether the real row is drawn
    prompts: Sequence[str] = (),  # what was asked for, printed under the pictures
    model: str = "",  # what drew them, in words
    show_real: bool = False,
    notes: Sequence[str] = (),
) -> Figure:
    """Real and generated images by group; a column is one prompt, a row one source."""
    chosen = {k: v for k, v in images.items() if k != "real" or may_show_real(dataset, show_real)}
    sources = ordered_methods(chosen)
    if not sources:
        raise InputError("fig02: no image to show")
    check_images({source: chosen[source] for source in sources}, len(columns), "fig02")
    height, width = chosen[sources[0]].shape[-2:]
    made = f" by {model}" if model else ""
    foot = (
        f"Images of {width} x {height} pixels{made}. A column is the prompt of one test subject, "
        "a row a source: columns differ in all that their prompts say, not in the group alone. "
        "The rows of generated images start from the same noise."
    )
    if "real" in images and "real" not in chosen:
        foot += " Real patients' images are left out."
    rows = {row_name(source, dataset): chosen[source] for source in sources}
    generated = [chosen[source] for source in sources if source != "real"]
    if len(generated) == 2:  # so alike that the eye can't tell them apart
        apart, times = difference(*generated)
        rows[f"difference,\n{times} times"] = apart
        foot += (
            f" Last row: how far the generated images are apart, {times} times, in each colour; "
            "black: alike."
        )
    side = side_of(chosen[sources[0]], (WIDTH - 1.0) / len(columns))
    left, whose = 0.95, [name.partition("\n")[0] for name in columns]
    told = [f"{name}: {prompt}" for name, prompt in zip(whose, prompts, strict=False)]
    tall, room = side * len(rows), WIDTH - left - side * len(columns)
    narrow = int(max(room, LEAST_ROOM) * LETTERS_AN_INCH)
    text = "\n\n".join(textwrap.fill(line, narrow) for line in told)
    beside_them = bool(told) and room >= LEAST_ROOM and _height(text) <= tall
    text = text if beside_them else "\n".join(wrap(line) for line in told)
    under = 0.0 if beside_them or not told else _height(text) + 0.1
    title = f"A test prompt of each group: {dataset_name(dataset)}"
    fig = page(0.95 + tall + under, title, foot, notes)
    parts: Any = fig.subfigures(2, 1, height_ratios=[tall + 0.2, max(under, 0.01)])
    grid = _grid(parts[0], len(rows), len(columns), side, left)
    for line, (row, pictures) in zip(grid, rows.items(), strict=True):
        for ax, picture in zip(line, pictures, strict=True):
            draw(ax, picture)
        line[0].set_ylabel(row, fontsize=7, rotation=0, ha="right", va="center")
    for ax, name in zip(grid[0], columns, strict=True):
        ax.set_title(name, fontsize=7)
    small: Any = {"fontsize": 6.5, "va": "top", "color": "#333333"}
    if beside_them:
        parts[0].subfigs[-1].text(0.04, tall / (tall + 0.2), text, **small)
    else:
        parts[1].text(0.008, 0.98, text, **small)
    return fig


def _height(text: str) -> float:
    """Inches that lines of small text take."""
    return 0.115 * (text.count("\n") + 1)


def difference(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, int]:
    """How far two uint8 arrays are apart, enlarged 16 times, or less where that would cut much."""
    apart = np.abs(one.astype(np.int16) - other.astype(np.int16))
    most = float(np.quantile(apart, 0.999))
    times = max(n for n in (1, 2, 4, 8, 16) if n == 1 or n * most <= 255)
    return np.minimum(apart * times, 255).astype(np.uint8), times


@figure("fig06")
def fig06(
    images: Mapping[str, np.ndarray],
    rows: Sequence[tuple[str, str]],
    *,
    dataset: str,  # decides the title
    prompt: str = "",  # the prompt that the rows change, printed on the page
    notes: Sequence[str] = (),
) -> Figure:
    """Prompt gallery: one condition changes at a time, five samples of each."""
    methods = ordered_methods(images)
    if not methods:
        raise InputError("fig06: no image to show")
    check_images(images, len(rows), "fig06")
    samples = images[methods[0]].shape[1]
    foot = (
        "Each row changes one condition of the same prompt. A column keeps its initial noise: "
        "what differs down a column is what the words changed."
    )
    if prompt:
        foot += f' The usual prompt: "{prompt}"'
    room = (WIDTH - 1.3) / (samples * len(methods) + 0.3 * (len(methods) - 1))
    side = side_of(images[methods[0]], room)
    title = f"One condition at a time: {dataset_name(dataset)}"
    fig = page(0.95 + side * len(rows), title, foot, notes)
    ratios = (([1.0] * samples + [0.3]) * len(methods))[:-1]
    grid = _grid(fig, len(rows), len(ratios), side, 1.25, ratios)
    for i, (condition, level) in enumerate(rows):
        for m, method in enumerate(methods):
            start = m * (samples + 1)
            for j in range(samples):
                draw(grid[i, start + j], images[method][i, j])
            if m:
                grid[i, start - 1].set_visible(False)
        name = level_name(condition, level).replace(": ", ":\n")
        grid[i, 0].set_ylabel(name, fontsize=7, rotation=0, ha="right", va="center")
    for m, method in enumerate(methods):
        grid[0, m * (samples + 1)].set_title(look_of(method).label, loc="left")
    return fig


@figure("patients", kept=False)
def sample_page(images: np.ndarray, names: Sequence[str], *, dataset: str) -> Figure:
    """Patients of a simulated dataset, one per group; of a real one none."""
    if not may_show_real(dataset):
        raise Nothing("real patients' images are not shown.")
    check_images({"real": images}, len(names), "patients")
    side = side_of(images, (WIDTH - 0.2) / len(names))
    title = f"Patients: {dataset_name(dataset)}"
    fig = page(0.75 + side, title, "One test subject per demographic level.")
    grid = _grid(fig, 1, len(names), side, 0.1)
    for ax, image, name in zip(grid[0], images, names, strict=True):
        draw(ax, image)
        ax.set_title(name, fontsize=7)
    return fig


def row_name(source: str, dataset: str) -> str:
    """Label of a row of images; "real" images of a simulator are called simulated."""
    if source == "real" and is_simulated(dataset):
        return "simulated\npatients"
    return look_of(source).label.replace(" ", "\n", 1)


def _grid(
    fig: Any, rows: int, columns: int, side: float, left: float, ratios: Sequence[float] = ()
) -> np.ndarray:
    """Axes [rows, columns] of ``side`` inches, packed left, with ``left`` inches for labels."""
    used = left + side * (sum(ratios) if ratios else columns)
    whole = fig.subfigures(1, 2, width_ratios=[used, max(WIDTH - used, 0.01)])
    engine: Any = fig.figure.get_layout_engine() if hasattr(fig, "figure") else None
    engine.set(w_pad=0.015, h_pad=0.015, wspace=0.0, hspace=0.0)
    kind = {"width_ratios": list(ratios)} if ratios else {}
    grid: np.ndarray = whole[0].subplots(rows, columns, squeeze=False, **kind)
    return grid


def draw(ax: Axes, image: np.ndarray) -> None:
    """One uint8 [3, H, W] image without ticks."""
    ax.imshow(np.moveaxis(image, 0, -1), interpolation="lanczos", aspect="equal")
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)


def check_images(images: Mapping[str, Any], count: int, what: str) -> None:
    """Refuse anything but uint8 arrays [count, ..., 3, H, W]."""
    for source, x in images.items():
        if x.dtype != np.uint8 or x.ndim < 4 or x.shape[-3] != 3 or len(x) != count:
            raise InputError(
                f"{what}: images of {source!r} are {x.dtype} {x.shape}, "
                f"expected uint8 [{count}, ..., 3, H, W]"
            )
