"""How everything looks: one style for figures and tables, one mapping of display names.

A page is seven inches wide; a method has one colour and one marker everywhere
(colour-blind safe, after Okabe and Ito); what is simulated says so.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from pandas.io.formats.style import Styler

from fairdiff_lib.datasets import DATASETS
from fairdiff_lib.disk.stamps import publish_figure
from fairdiff_lib.settings.errors import InputError, refuse_unknown

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
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "pdf.fonttype": 42,  # TrueType, embedded: text stays text
    "savefig.dpi": 150,
}
MUTED = "#777777"


@dataclass(frozen=True)
class Look:
    """How a method is shown, everywhere."""

    label: str
    colour: str
    marker: str


METHODS: dict[str, Look] = {
    "real": Look("real images", "#4d4d4d", "s"),
    "base": Look("base model, before fine-tuning", "#56b4e9", "v"),
    "none": Look("Stable Diffusion", "#0072b2", "o"),
    "random": Look("random perturbation", "#009e73", "^"),
    "fairdiffusion": Look("FairDiffusion", "#d55e00", "D"),
    # relatives share a hue and differ by marker
    "fairdiffusion_as_released": Look("FairDiffusion, all as released", "#a04600", "D"),
    "fairdiffusion_corrected": Look("FairDiffusion, corrected", "#cc79a7", "P"),
    "fairdiffusion_noise": Look("corrected, but noise only", "#a35f87", "p"),
    "none_matched_lr": Look("matched learning rate", "#5b9bc8", "o"),
    "group_blind_noise": Look("group-blind noise", "#7cc9ae", "^"),
    "random_sigma": Look("random sigma, dose-matched", "#00664a", "<"),
    "shuffled_y": Look("shuffled scores", "#8c8c8c", "X"),
    "shuffled_y_corrected": Look("corrected, shuffled scores", "#5f5f5f", "X"),
    "replay": Look("replayed sigmas", "#b3b3b3", ">"),
    "inverse_frequency": Look("inverse frequency", "#e69f00", "s"),
    "group_balanced": Look("group-balanced sampling", "#b37b00", "s"),
    "group_dro": Look("GroupDRO", "#f0c75e", "v"),
    "fis": Look("FIS", "#c9b800", "h"),
    "febs": Look("FEBS", "#8f8300", "h"),
    "adaptive_sampling": Look("adaptive sampling", "#805800", "d"),
    "demographic_tokens": Look("demographic tokens", "#6a51a3", "*"),
    "fair_lora": Look("FairLoRA", "#9e8cc9", "*"),
    # arms of the downstream matrix, beside "real": what a classifier is trained on
    "synthetic": Look("generated images", "#3f7fae", "o"),
    "balanced_synthetic": Look("generated, balanced", "#c48a1a", "^"),
    "real_and_synthetic": Look("real and generated", "#003f66", "D"),
    "real_and_balanced": Look("real and balanced", "#8a5a00", "v"),
    "pretrain_then_real": Look("generated first, then real", "#b3477f", "P"),
}
LEVEL_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#000000")
SPLITS: dict[str, Look] = {
    "train": Look("training", "#4d4d4d", "s"),
    "val": Look("validation", "#cc79a7", "v"),
    "test": Look("test", "#0072b2", "o"),
}
NAMES: dict[str, str] = {
    "overall": "All",
    "md_severity": "Vision loss",
    "cdr_status": "Cup-disc ratio",
    "se_status": "Refraction",
    "dx": "Diagnosis",
    "effusion": "Pleural effusion",
    "kid": "KID (lower is better)",
    "fid": "FID (lower is better)",
    "mifid": "MiFID (lower is better)",
    "inception_score": "Inception score (higher is better)",
    "is": "Inception score (higher is better)",
    "auc": "AUC",
    "accuracy": "Accuracy",
    "es_auc": "Equity-scaled AUC",
    "es_accuracy": "Equity-scaled accuracy",
    "brier": "Brier score",
    "ece": "Calibration error",
    "fnr": "False-negative rate",
    "false_positive_rate_at_equal_sensitivity": "False-positive rate\nat equal sensitivity",
    "agreement": "Agreement with the prompt",
    "cup_disc_agreement": "Measures as asked",
    "second_colour_agreement": "Measures as asked",
    "effusion_agreement": "Measures as asked",
    "dpd": "DPD (lower is better)",
    "eod": "EOD (lower is better)",
}


FAMILIES = {"efficientnet": "EfficientNet", "vit": "ViT", "residual": "ResNet"}
WORDS = {  # of names that are put together
    "kid": "KID",
    "fid": "FID",
    "mifid": "MiFID",
    "auc": "AUC",
    "fnr": "false-negative rate",
    "es": "equity-scaled",
    "psd": "PSD",
    "dpd": "DPD",
    "eod": "EOD",
}


def name_of(key: str) -> str:
    """Display name of an attribute, condition, metric or dataset."""
    text = NAMES.get(key) or " ".join(WORDS.get(word, word) for word in key.split("_"))
    return text[:1].upper() + text[1:]


def classifier_name(name: str) -> str:
    """Display name of a classifier: its family, then its size."""
    plain = name.removesuffix(" from scratch")
    family, _, size = plain.partition("-")
    return f"{FAMILIES.get(family, family)} {size.replace('-', ', ')}".strip()


def limits(dataset: str) -> str:
    """What nothing measured on this data set says."""
    return DATASETS[dataset].limits if dataset in DATASETS else ""


def dataset_name(dataset: str) -> str:
    """Display name of a data set; a simulated one says so."""
    return DATASETS[dataset].title if dataset in DATASETS else dataset


def short_name(name: str) -> str:
    """A table's or figure's id as people say it: T2 for tab02; gates for tab_gates."""
    numbered = re.fullmatch(r"(tab|fig)(\d+)", name)
    if numbered:
        return f"{numbered[1][0].upper()}{int(numbered[2])}"
    return re.sub("^(tab|fig)_", "", name).replace("_", " ")


def rounded(value: float, digits: int = 3) -> str:
    """A number with so many significant digits; a whole one from 1000 on."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


def look_of(method: str) -> Look:
    """Label, colour and marker of a method; an unknown one is refused by name."""
    refuse_unknown("method for a figure", method, METHODS)
    return METHODS[method]


def ordered_methods(methods: Iterable[str]) -> list[str]:
    """The methods present, each once, in the order in which every figure shows them."""
    present = set(methods)
    for method in sorted(present):
        look_of(method)
    return [method for method in METHODS if method in present]


def page(
    height: float,
    title: str,
    foot: str = "",
    notes: Sequence[str] = (),
    looks: Sequence[Look] = (),
) -> Figure:
    """An empty page of the house style.

    Parameters
    ----------
    height : float
        Inches.
    title : str
        Bold line at the top left.
    foot : str
        What the marks mean: interval, n, units.
    notes : sequence of str
        Warnings that must be seen, as a failed gate.
    looks : sequence of Look
        Shown in one legend under the title.
    """
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


def wrap(text: str, width: int = 126) -> str:
    """Break a line at spaces so that it fits the page at seven points."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def require(table: pd.DataFrame, columns: Sequence[str], what: str) -> str:
    """Refuse a table without rows or columns; return the one dataset that it holds."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise InputError(f"{what}: the table has no column {', '.join(missing)}")
    if table.empty:
        raise InputError(f"{what}: the table has no row")
    datasets = sorted(set(table["dataset"].astype(str)))
    if len(datasets) != 1:
        raise InputError(f"{what}: expected one dataset, found {', '.join(datasets)}")
    return datasets[0]


def whisker(ax: Axes, row: pd.Series[Any], at: float, look: Look, *, across: bool = False) -> None:
    """One dot with its interval: upright, or lying when ``across``; NaN draws nothing."""
    value, low, high = (float(row[key]) for key in ("value", "low", "high"))
    if not np.isfinite(value):
        return
    if np.isfinite(low) and np.isfinite(high):
        ends, places = [low, high], [at, at]
        line = (ends, places) if across else (places, ends)
        ax.plot(*line, color=look.colour, lw=1.1, solid_capstyle="butt", zorder=2)
    point = ([value], [at]) if across else ([at], [value])
    ax.plot(*point, look.marker, color=look.colour, ms=4.2, mec="white", mew=0.4, zorder=3)


def legend(fig: Figure, looks: Sequence[Look], top: float) -> None:
    """One legend for the whole page, its top at a fraction of the page's height."""
    own: dict[str, Any] = {}
    if sum(len(look.label) for look in looks) > 80:  # letters in seven inches at the usual size
        own = {"fontsize": 6, "handlelength": 1.2, "handletextpad": 0.4, "columnspacing": 0.9}
    with matplotlib.rc_context(STYLE):
        place = (-0.003, top)
        fig.legend(handles=handles(looks), loc="upper left", bbox_to_anchor=place, ncols=9, **own)


def panel_legend(ax: Axes, looks: Sequence[Look]) -> None:
    """A legend in one line between a panel's title and its marks; call after the title is set."""
    ax.legend(
        handles=handles(looks), loc="lower left", bbox_to_anchor=(-0.03, 0.99), ncols=9,
        fontsize=6.5, handlelength=0.7, handletextpad=0.3, columnspacing=0.8, borderpad=0.2,
    )  # fmt: skip
    ax.set_title(ax.get_title(loc="left"), loc="left", pad=15)


def handles(looks: Sequence[Look]) -> list[Line2D]:
    """Legend entries: a marker on a line where there is one."""
    return [
        Line2D([], [], color=x.colour, marker=x.marker, ms=4.2, lw=1.1, label=x.label)
        for x in looks
    ]


def save(fig: Figure, path: Path, stamp: Mapping[str, Any]) -> Path:
    """Write PNG (150 dpi), PDF (fonts embedded as text) and stamp; returns the PNG's path.

    Parameters
    ----------
    fig : Figure
    path : Path
        Without suffix.
    stamp : mapping
        From ``store.make_stamp``.
    """
    with matplotlib.rc_context(STYLE):
        return publish_figure(fig, path, stamp)


def as_png(fig: Figure) -> bytes:
    """The page as PNG (150 dpi), for a notebook that keeps no file of it."""
    stream = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        fig.savefig(stream, format="png", dpi=150)
    return stream.getvalue()


def style_table(frame: pd.DataFrame, digits: int = 3, caption: str = "") -> HTML:
    """A table for a notebook: numbers rounded, missing ones visible, no index.

    Parameters
    ----------
    frame : DataFrame
    digits : int
        Significant digits of real numbers.
    caption : str
        Printed above the table.

    Returns
    -------
    HTML
        The same bytes for the same table (pandas' own names are random).
    """

    def show(value: Any) -> str:
        return rounded(value, digits) if isinstance(value, float) else f"{value}"

    name = hashlib.sha256(f"{caption}{frame.to_csv()}".encode()).hexdigest()[:8]
    plain = frame.reset_index(drop=True)
    styled = Styler(plain, uuid=name, cell_ids=False).format(show, na_rep="not estimable")
    styled = styled.hide(axis="index")
    page = (styled.set_caption(caption) if caption else styled).to_html()
    return HTML(page)  # type: ignore[no-untyped-call]
