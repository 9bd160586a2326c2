"""Pictures of the ablation study (08: settings, noise, all arms) and of the proof (10)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from statsmodels.stats.proportion import proportion_confint

from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.methods import METHODS
from fairdiff_lib.show.figures.quality import fid_against_n_figure
from fairdiff_lib.show.front import Nothing, figure
from fairdiff_lib.show.panels import panel_legend, require, whisker
from fairdiff_lib.show.style import LEVEL_COLOURS, MUTED, Look, dataset_name, look_of, page

ROW = 0.17  # inches that an arm takes
ROLES = {  # heading of the arms of a role
    "core": "Core arms (tested)",
    "control": "Controls",
    "rival": "Rivals",
    "window": "Window and drift rate",
    "option": "One option at a time",
}
SHOWN = {  # metric: axis label
    "kid": "change in KID",
    "kid_disparity": "change in squared KID\ndifference of levels",
    "denoising_loss_disparity": "change in squared loss\ndifference of levels",
}
GREY = "#eeeeee"


def arm_look(name: str) -> Look:
    """Label, colour and marker of an arm; one with options looks like its method."""
    method, _, rest = name.partition(" ")
    known = look_of(method) if method in METHODS else None
    if known is None:
        raise InputError(f"arm {name!r}: unknown method {method!r}")
    return Look(f"{known.label}: {rest}" if rest else known.label, known.colour, known.marker)


# -- F7 --------------------------------------------------------------------------------------


@figure("fig07")
def fig07(cells: pd.DataFrame, doses: pd.DataFrame, notes: Sequence[str] = ()) -> Figure:
    """T12's settings with intervals, and every arm of pure noise by the noise it amounts to."""
    if cells.empty:
        raise Nothing("other windows and drift rates were not run on this data set")
    columns = ("dataset", "time_window", "exploitation_rate", "baseline", "metric", "seeds")
    dataset = require(cells, columns, "fig07")
    own = cells[(cells["metric"] == "kid") & (cells["attribute"] == "overall")]
    own = own[(own["baseline"] != "") & (own["features"] == own["features"].iloc[0])]
    own = own.sort_values(["time_window", "exploitation_rate"])
    marks = doses[doses["metric"] == "kid"]
    looks = [arm_look(name) for name in dict.fromkeys(marks["method"].str.split(" ").str[0])]
    foot = (
        "Left: change in KID from Stable Diffusion, with its interval over training seeds; grey: "
        "smaller than what matters. Right: a mark per run, over the variance of its weights; "
        f"Stable Diffusion's is 0. n = {int(own['n'].max())} test subjects."
    )
    title = f"Does the optimiser's setting matter? {dataset_name(dataset)}"
    fig = page(3.4, title, foot, notes, looks)
    left, right = fig.subplots(1, 2, width_ratios=[1.2, 1.0])
    size = float(own["smallest_effect"].max())
    if np.isfinite(size):
        left.axvspan(-size, size, color=GREY, lw=0, zorder=0)
    for at, (_, row) in enumerate(own.iterrows()):
        whisker(left, row, at, arm_look(str(row["method"])), across=True)
    left.axvline(0, color="#999999", lw=0.6, zorder=1)
    names = [
        f"window {row.time_window:g}, rate {row.exploitation_rate:g}" for row in own.itertuples()
    ]
    left.set_yticks(range(len(own)), names)
    left.set_ylim(len(own) - 0.5, -0.5)
    left.tick_params(axis="y", length=0)
    left.set_xlabel(SHOWN["kid"])
    sns.regplot(marks, x="noise_variance", y="value", scatter=False, color=MUTED, ax=right,
                line_kws={"lw": 0.9}, seed=0)  # fmt: skip
    for name, part in marks.groupby("method", sort=False):
        look = arm_look(str(name))
        right.plot(part["noise_variance"], part["value"], look.marker, color=look.colour,
                   ms=4.2, mec="white", mew=0.4)  # fmt: skip
    right.axhline(0, color="#bbbbbb", lw=0.6, zorder=0)
    right.set(xlabel="variance of the weights", ylabel=SHOWN["kid"])
    return fig


# -- all arms --------------------------------------------------------------------------------


@figure("fig_methods")
def fig_methods(table: pd.DataFrame, roles: dict[str, str], notes: Sequence[str] = ()) -> Figure:
    """Every arm minus Stable Diffusion: overall KID and the differences between levels."""
    dataset = require(table, ("dataset", "method", "baseline", "metric", "seeds"), "fig_methods")
    own = table[(table["baseline"] == "none") & (table["attribute"] == "overall")]
    first = table.loc[table["metric"] == "kid", "features"].iloc[0]
    own = own[own["features"].isin([first, ""])]
    lines = _lines(own, roles)
    foot = (
        "Arm minus Stable Diffusion, paired by training seed, left of zero is better; bar: 95% "
        "interval over seeds, for these patients. Grey: smaller than the smallest effect of "
        "interest (none was declared for the loss). On the right: number of seeds."
    )
    fig = page(
        1.1 + ROW * len(lines), f"Does any method help? {dataset_name(dataset)}", foot, notes
    )
    axes = fig.subplots(1, len(SHOWN), sharey=True)
    for ax, (metric, label) in zip(axes, SHOWN.items(), strict=True):
        _forest(ax, own[own["metric"] == metric], lines, label)
    axes[0].set_yticks(range(len(lines)), [text for text, _ in lines])
    for text, (_, arm) in zip(axes[0].get_yticklabels(), lines, strict=True):
        text.set_fontweight("bold" if arm is None else "normal")
        text.set_fontsize(7)
    _count_seeds(axes[-1], own, lines)
    return fig


def _lines(own: pd.DataFrame, roles: dict[str, str]) -> list[tuple[str, str | None]]:
    """(label, arm) of every line; a heading has no arm."""
    present, lines = set(own["method"]), list[tuple[str, str | None]]()
    for role, heading in ROLES.items():
        names = [name for name, its in roles.items() if its == role and name in present]
        if names:
            lines += [(heading, None), *((arm_look(name).label, name) for name in names)]
    return lines


def _forest(
    ax: Axes, table: pd.DataFrame, lines: Sequence[tuple[str, str | None]], label: str
) -> None:
    size = float(table["smallest_effect"].max()) if len(table) else float("nan")
    if np.isfinite(size):
        ax.axvspan(-size, size, color=GREY, lw=0, zorder=0)
    for at, (_, arm) in enumerate(lines):
        for _, row in table[table["method"] == arm].iterrows():
            whisker(ax, row, at, arm_look(str(arm)), across=True)
    ax.axvline(0, color="#999999", lw=0.6, zorder=1)
    ax.set_ylim(len(lines) - 0.5, -0.5)
    ax.set_title(label, fontsize=7.5)  # above: the axis' power of ten stands below
    ax.ticklabel_format(axis="x", style="sci", scilimits=(-3, 3), useMathText=True)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=6.5)


def _count_seeds(ax: Axes, own: pd.DataFrame, lines: Sequence[tuple[str, str | None]]) -> None:
    seeds = own.drop_duplicates("method").set_index("method")["seeds"].astype(str)
    for at, (_, arm) in enumerate(lines):
        if arm is not None:
            ax.text(1.02, at, f"{seeds[arm].count(',') + 1}", fontsize=6.5, va="center",
                    color=MUTED, transform=ax.get_yaxis_transform())  # fmt: skip


PROMISED = 0.05  # of false alarms: the level of every test
NULLS = {
    "exchangeable": Look("groups alike in everything", "#0072b2", "o"),
    "unequal": Look("groups unlike, but equally good", "#d55e00", "D"),
}
METRICS = {
    "kid": "KID",
    "kid_several_images": "KID, one to three images a subject",
    "kid_family_race": "KID, three levels at once",
    "kid_family_all": "KID, three attributes at once",
    "kid_standardised": "KID at a common case mix",
    "auc": "AUC",
    "accuracy": "accuracy",
    "denoising_loss": "denoising loss",
    "fid": "FID",
}
PROCEDURES = {
    "audit": "this study's audit",
    "fid_permutation": "permutation test, each group's own n",
    "fid_equal_n_permutation": "permutation test, equal n",
    "released_t_test": "t-test over bootstrap replicates, as released",
    "kid_raw_permutation": "permutation test, each group's own n",
    "kid_equal_n_permutation": "permutation test, equal n",
    "kid_bootstrap_self_pairs": "bootstrap that pairs an image with itself",
    "kid_crude": "plain KID, case mix ignored",
}


def cell_name(row: Any) -> str:
    """Layer, metric or test, and size, in words."""
    what = METRICS[row["metric"]]
    if row["procedure"] != "audit":
        what = f"{what}, {PROCEDURES[row['procedure']]}"
    return f"layer {row['layer']}, {what}, n = {row['n_min']}"


@figure("fig_calibration")
def fig_calibration(table: pd.DataFrame, notes: Sequence[str] = ()) -> Figure:
    """False alarms of the audit and of usual tests, where groups are equally good."""
    under = table[(table["null"] != "none") & table["metric"].isin(["kid", "fid"])]
    names = {
        f"{METRICS[metric]}: {PROCEDURES[procedure]}": (metric, procedure)
        for metric, procedure in [
            ("kid", "audit"), ("kid", "kid_raw_permutation"), ("kid", "kid_equal_n_permutation"),
            ("kid", "kid_bootstrap_self_pairs"), ("fid", "fid_permutation"),
            ("fid", "fid_equal_n_permutation"), ("fid", "released_t_test"),
        ]
    }  # fmt: skip
    label = {key: name for name, key in names.items()}
    keys = pd.Series(list(zip(under["metric"], under["procedure"], strict=True)), under.index)
    shown = under.assign(name=keys.map(label), groups=under["null"].map(lambda n: NULLS[n].label))
    few, many = shown["simulations"].min(), shown["simulations"].max()
    foot = (
        f"A dot is a situation, of {few:,} to {many:,} simulated audits: sizes of the smaller "
        f"group from {under['n_min'].min()} to {under['n_min'].max()} subjects, features of known "
        "law, simulated images, a trained generator. In all of them both groups are equally good: "
        "an alarm is an error. Line: the 5% that each test promises."
    )
    fig = page(1.4 + 0.34 * len(names), "Who calls equally good groups unequal?", foot, notes,
               list(NULLS.values()))  # fmt: skip
    ax = fig.subplots()
    sns.stripplot(
        shown.dropna(subset="name"), x="alarm_rate", y="name", hue="groups", order=list(names),
        palette={look.label: look.colour for look in NULLS.values()}, dodge=True, jitter=0.12,
        size=4.5, alpha=0.85, legend=False, ax=ax,
    )  # fmt: skip
    ax.axvline(PROMISED, color=MUTED, lw=0.9, zorder=0)
    ax.set(xlim=(-0.02, 1.02), xlabel="share of audits that raise a false alarm", ylabel="")
    ax.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
    ax.tick_params(axis="y", length=0)
    return fig


def _with_error(row: Any, column: str) -> pd.Series[Any]:
    """A rate with its Wilson interval over simulations."""
    value, n = row[column], row["simulations"]
    if not np.isfinite(value):
        return pd.Series({"value": np.nan, "low": np.nan, "high": np.nan})
    low, high = proportion_confint(round(value * n), n, method="wilson")
    return pd.Series({"value": value, "low": low, "high": high})


@figure("fig_power")
def fig_power(table: pd.DataFrame, reference: int, kid: float) -> Figure:
    """Share of audits that alarm against the planted KID ratio, a line per size."""
    own = table[(table["procedure"] == "audit") & (table["layer"] == "F")]
    own = own[(own["metric"] == "kid") & (own["null"] != "exchangeable")]
    sizes = sorted(set(own["n_min"]))
    looks = [Look(f"n = {n}", LEVEL_COLOURS[i % 7], "osD^v<>"[i % 7]) for i, n in enumerate(sizes)]
    foot = (
        f"A small group of n subjects against {reference}, whose KID is {kid:g}; real images and "
        "kinds of error differ (layer F). Whiskers: 95% Monte Carlo intervals. Line: 5%."
    )
    fig = page(3.2, "How large a disparity does the audit find?", foot)
    alarms, coverage = fig.subplots(1, 2)
    for n, look in zip(sizes, looks, strict=True):
        part = own[own["n_min"] == n].sort_values("planted_ratio")
        alarms.plot(part["planted_ratio"], part["alarm_rate"], color=look.colour, lw=1.0)
        for row in part.to_dict("records"):
            whisker(alarms, _with_error(row, "alarm_rate"), row["planted_ratio"], look)
            whisker(coverage, _with_error(row, "coverage"), row["planted_ratio"], look)
    alarms.axhline(PROMISED, color=MUTED, lw=0.8)
    coverage.axhline(1 - PROMISED, color=MUTED, lw=0.8)
    alarms.set(ylim=(0, 1.02), ylabel="share of audits that alarm")
    coverage.set(ylabel="share of intervals that hold the truth")
    for ax, title in ((alarms, "Power"), (coverage, "Coverage of 95% intervals")):
        ax.set_xticks(sorted(set(own["planted_ratio"])))
        ax.set_xlabel("KID of the small group / KID of the large group")
        ax.set_title(title, loc="left")
        panel_legend(ax, looks)
    return fig


@figure("fig_fid_bias")
def fig_fid_bias(rows: pd.DataFrame, limit: float) -> Figure:
    """Plain FID against n of two groups of equal population FID; from ``known.fid_bias``."""
    return fid_against_n_figure(
        rows,
        limits={"": limit},
        title="FID of two equally good groups, by n (simulated features)",
        limit="the population FID of both groups, in closed form",
    )
