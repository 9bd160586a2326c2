"""How everything looks: one page style, one colour and marker per method, the data's own names.

A page is seven inches wide; colours are safe for the colour-blind (after Okabe and Ito); what is
simulated says so.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fairdiff_lib.datasets import DATASETS
from fairdiff_lib.datasets import dataset_name as dataset_name
from fairdiff_lib.settings.methods import METHODS, NEUTRAL
from fairdiff_lib.settings.names import method_name

WIDTH = 7.0  # inches: a page's text width
STYLE: Any = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same page on every machine
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": False,
    "axes.axisbelow": True,
    "grid.color": "#eeeeee",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "pdf.fonttype": 42,  # TrueType, embedded: text stays text
    "savefig.dpi": 150,
    "text.parse_math": False,  # a level may be called "$0-$24,999"
}
MUTED = "#777777"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LEVEL_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#000000")


@dataclass(frozen=True)
class Look:
    """How a method, a split or a level is shown."""

    label: str
    colour: str
    marker: str


_SOURCES = {  # colour and marker of images that no method made, and of mixtures
    "real": ("#4d4d4d", "s"),
    "base": ("#56b4e9", "v"),
    "synthetic": ("#3f7fae", "o"),
    "balanced_synthetic": ("#c48a1a", "^"),
    "real_and_synthetic": ("#003f66", "D"),
    "real_and_balanced": ("#8a5a00", "v"),
    "pretrain_then_real": ("#b3477f", "P"),
}
SPLITS: dict[str, Look] = {
    "train": Look("training", "#4d4d4d", "s"),
    "val": Look("validation", "#cc79a7", "v"),
    "test": Look("test", "#0072b2", "o"),
}


def look_of(method: str) -> Look:
    """Label, colour and marker of a method; without its own, its name in neutral grey."""
    if method in METHODS:
        return Look(method_name(method), METHODS[method].colour, METHODS[method].marker)
    return Look(method_name(method), *_SOURCES.get(method, (NEUTRAL, "o")))


def ordered_methods(methods: Iterable[str]) -> list[str]:
    """The methods present, each once, in the order in which every figure shows them."""
    present = set(methods)
    known = ["real", "base", *METHODS, *(name for name in _SOURCES if name not in ("real", "base"))]
    return [name for name in known if name in present] + sorted(present - set(known))


def level_looks(levels: Sequence[str]) -> list[Look]:
    """A colour and a marker per level, in their order."""
    return [
        Look(str(level), LEVEL_COLOURS[i % len(LEVEL_COLOURS)], MARKERS[i % len(MARKERS)])
        for i, level in enumerate(levels)
    ]


# -- data sets -------------------------------------------------------------------------------


def limits(dataset: str) -> str:
    """What nothing measured on this data set says."""
    return DATASETS[dataset].limits if dataset in DATASETS else ""


def is_simulated(dataset: str) -> bool:
    """Whether its patients are drawn by a simulator."""
    return dataset in DATASETS and DATASETS[dataset].simulated


# -- pages -----------------------------------------------------------------------------------


def page(
    height: float,  # inches
    title: str,
    foot: str = "",  # what the marks mean: interval, n, units
    notes: Sequence[str] = (),  # warnings that must be seen, as a failed gate
    looks: Sequence[Look] = (),  # shown in one legend under the title
) -> Figure:
    """An empty page of the house style."""
    if "simulated" in title and any("real " in text for text in (foot, *(x.label for x in looks))):
        foot = f"{foot} Real: of simulated patients, not made by a model."
    lines = [foot] if foot else []
    lines += [f"Caution: {note}" for note in notes if note]
    text = "\n".join(wrap(line) for line in lines)
    height += 0.12 * text.count("\n")  # notes lengthen the page, they don't shrink the panels
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(WIDTH, height), layout="constrained")
    engine: Any = fig.get_layout_engine()
    engine.set(w_pad=0.04, h_pad=0.05, wspace=0.03, hspace=0.04)
    space = "\n " if looks else ""  # a blank line of the title, where the legend goes
    fig.suptitle(title + space, x=0.008, ha="left", fontsize=9.5, fontweight="bold")
    if looks:
        legend(fig, looks, 1 - 0.2 / height)
    if text:
        fig.supxlabel(text, x=0.008, ha="left", fontsize=7, color="#333333")
    return fig


def wrap(text: str) -> str:
    """Break a line at spaces so that it fits the page at seven points."""
    plain = " ".join(text.split())
    return textwrap.fill(plain, 126, break_long_words=False, break_on_hyphens=False)


def legend(fig: Figure, looks: Sequence[Look], top: float) -> None:
    """One legend for the whole page, its top at a fraction of the page's height."""
    own: dict[str, Any] = {}
    if sum(len(look.label) for look in looks) > 80:  # letters in seven inches at the usual size
        own = {"fontsize": 6, "handlelength": 1.2, "handletextpad": 0.4, "columnspacing": 0.9}
    with matplotlib.rc_context(STYLE):
        place = (-0.003, top)
        fig.legend(handles=handles(looks), loc="upper left", bbox_to_anchor=place, ncols=9, **own)


def handles(looks: Sequence[Look]) -> list[Line2D]:
    """Legend entries: a marker on a line where there is one."""
    return [
        Line2D([], [], color=x.colour, marker=x.marker, ms=4.2, lw=1.1, label=x.label)
        for x in looks
    ]
