"""Pictures of the ablation study (08: settings, noise, all arms), proof (10) and plant (19)."""

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

from fairdiff_lib.audit.seeds import LEAST_SEEDS
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.methods import METHODS
from fairdiff_lib.settings.names import EQUALLY_GOOD, level_name
from fairdiff_lib.show.figures.quality import fid_against_n_figure
from fairdiff_lib.show.front import Nothing, figure
from fairdiff_lib.show.panels import panel_legend, require, whisker
from fairdiff_lib.show.style import (
    LEVEL_COLOURS,
    MUTED,
    Look,
    dataset_name,
    level_looks,
    look_of,
    page,
)

ROW = 0.17  # inches that an arm takes
ROLES = {  # heading of the arms of a role
    "core": "Core arms (declared)",
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
    new = own["low_new"].notna() if "low_new" in own else pd.Series(False, index=own.index)
    for side in ("low", "high"):
        own.loc[new, side] = own.loc[new, f"{side}_new"] if new.any() else own[side]
    whom = "new patients and new training runs" if new.all() else "these patients"
    size = float(own["smallest_effect"].max())
    matters = f" grey: smaller than what matters ({size:.2g})." if np.isfinite(size) else ""
    marks = doses[doses["metric"] == "kid"]
    looks = [arm_look(name) for name in dict.fromkeys(marks["method"].str.split(" ").str[0])]
    foot = (
        f"Left: change in KID from Stable Diffusion, with its interval for {whom};{matters} "
        "Right: a mark per run, over the variance of its weights; Stable Diffusion's is 0. "
        f"n = {int(own['n'].max())} test subjects."
    )
    title = f"Does the optimiser's setting matter? {dataset_name(dataset)}"
    fig = page(3.4, title, foot, notes, looks)
    left, right = fig.subplots(1, 2, width_ratios=[1.2, 1.0])
    if np.isfinite(size):
        left.axvspan(-size, size, color=GREY, lw=0, zorder=0)
    reach = 2.5 * float(own[["low", "high"]].abs().max().max())
    if np.isfinite(reach) and reach < size:  # what matters would dwarf what was seen
        left.set_xlim(-reach, reach)
    left.locator_params(axis="x", nbins=5)
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
    columns = ("dataset", "method", "baseline", "metric", "seeds", "p")
    dataset = require(table, columns, "fig_methods")
    own = table[(table["baseline"] == "none") & (table["attribute"] == "overall")]
    first = table.loc[table["metric"] == "kid", "features"].iloc[0]
    own = own[own["features"].isin([first, ""])]
    lines = arm_lines(own, roles)
    foot = (
        "Arm minus Stable Diffusion, paired by training seed, left of zero is better; bar: 95% "
        "interval over seeds, for these patients. Grey: smaller than the smallest effect of "
        "interest (none was declared for the loss). On the right: number of seeds."
    )
    if own["p"].isna().all():
        foot += f" Of fewer than {LEAST_SEEDS} seeds nothing is tested."
    fig = page(
        1.1 + ROW * len(lines), f"Does any method help? {dataset_name(dataset)}", foot, notes
    )
    axes = fig.subplots(1, len(SHOWN), sharey=True)
    for ax, (metric, label) in zip(axes, SHOWN.items(), strict=True):
        arms_forest(ax, own[own["metric"] == metric], lines, label)
    axes[0].set_yticks(range(len(lines)), [text for text, _ in lines])
    for text, (_, arm) in zip(axes[0].get_yticklabels(), lines, strict=True):
        text.set_fontweight("bold" if arm is None else "normal")
        text.set_fontsize(7)
    count_seeds(axes[-1], own, lines)
    return fig


def arm_lines(own: pd.DataFrame, roles: dict[str, str]) -> list[tuple[str, str | None]]:
    """(label, arm) of every line; a heading has no arm."""
    present, lines = set(own["method"]), list[tuple[str, str | None]]()
    for role, heading in ROLES.items():
        names = [name for name, its in roles.items() if its == role and name in present]
        if names:
            lines += [(heading, None), *((arm_look(name).label, name) for name in names)]
    return lines


def arms_forest(
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
    ax.locator_params(axis="x", nbins=4)
    ax.ticklabel_format(axis="x", style="sci", scilimits=(-3, 3))  # "1e-3": no math is set
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=6.5)


def count_seeds(ax: Axes, own: pd.DataFrame, lines: Sequence[tuple[str, str | None]]) -> None:
    seeds = own.drop_duplicates("method").set_index("method")["seeds"].astype(str)
    for at, (_, arm) in enumerate(lines):
        if arm in seeds.index:
            ax.text(1.02, at, f"{seeds[str(arm)].count(',') + 1}", fontsize=6.5, va="center",
                    color=MUTED, transform=ax.get_yaxis_transform())  # fmt: skip


PROMISED = 0.05  # of false alarms: the level of every test
NULLS = {
    "exchangeable": Look(EQUALLY_GOOD["exchangeable"], "#0072b2", "o"),
    "unequal": Look(EQUALLY_GOOD["unequal"], "#d55e00", "D"),
}
METRICS = {
    "kid": "KID",
    "kid_guarded": "KID",
    "kid_over_runs": "KID, mean over runs",
    "kid_family": "KID, all levels at once",
    "kid_standardised": "KID at a common case mix",
    "equivalent_blur": "equivalent blur",
    "auc": "AUC",
    "es_auc": "equity-scaled AUC",
    "accuracy": "accuracy",
    "denoising_loss": "denoising loss",
    "verdict": "verdict",
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
    "kid_t_interval": "t-intervals in place of those on the root scale",
    "kid_crude": "plain KID, case mix ignored",
    "copies_ignored": "copies ignored",
    "patients_only": "interval over patients alone",
    "kid_instead": "KID in place of equivalent blur, one and the same blur",
    "es_as_usual": "as usual",
}
SHOWN_PROCEDURES = {  # of the figure: metric and procedure
    ("equivalent_blur", "audit"): "This study's audit (equivalent blur)",
    ("kid", "audit"): "This study's audit (KID)",
    ("kid", "kid_instead"): "KID of groups of one equivalent blur",
    ("kid", "kid_raw_permutation"): "KID: permutation test, each group's own n",
    ("kid", "kid_equal_n_permutation"): "KID: permutation test, equal n",
    ("kid", "kid_bootstrap_self_pairs"): "KID: bootstrap that pairs an image with itself",
    ("fid", "fid_permutation"): "FID: permutation test, each group's own n",
    ("fid", "fid_equal_n_permutation"): "FID: permutation test, equal n",
    ("fid", "released_t_test"): "FID: t-test over replicates, as released",
}


def cell_name(row: Any) -> str:
    """Metric or test, what it looked at, and size, in words."""
    what = METRICS[row["metric"]]
    if row["procedure"] != "audit":
        what = f"{what}, {PROCEDURES[row['procedure']]}"
    ratio = row["planted_ratio"]
    planted = "" if ratio == 1 else f", a ratio of {ratio:.3g} planted"
    return f"{what} ({row['situation']}, layer {row['layer']}, n = {row['n_min']}{planted})"


def equally_good(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the proof where both groups are equally good, with the procedure's ``name``.

    Good is told by the measure that is tested: one FID, one KID, one equivalent blur.
    """
    names = table["situation"].str
    here = names.startswith("two groups") | names.endswith("one blur")
    own = table[table["null"].isin(list(NULLS)) & here]
    keys = pd.Series(list(zip(own["metric"], own["procedure"], strict=True)), own.index)
    return own.assign(name=keys.map(SHOWN_PROCEDURES)).dropna(subset="name")


@figure("fig_calibration")
def fig_calibration(table: pd.DataFrame, notes: Sequence[str] = ()) -> Figure:
    """False alarms of the audit and of usual tests, where groups are equally good."""
    own = equally_good(table)
    few, many = own["simulations"].min(), own["simulations"].max()
    foot = (
        f"A dot is a situation, of {few:,} to {many:,} simulated audits: {own['n_min'].min()} or "
        f"{own['n_min'].max()} subjects in the smaller group, features of known law or simulated "
        "images. Both groups are equally good, by the measure that is tested unless another is "
        "named: an alarm is an error. Line: the 5% that each test promises."
    )
    title = "Who calls equally good groups unequal?"
    fig = page(1.2 + 0.34 * len(SHOWN_PROCEDURES), title, foot, notes, list(NULLS.values()))
    alarm_panel(fig.subplots(), own)
    return fig


def alarm_panel(ax: Axes, own: pd.DataFrame, names: Sequence[str] = ()) -> None:
    """False alarms of procedures, by ``name``; both kinds of equally good groups."""
    names = list(names) or [one for one in SHOWN_PROCEDURES.values() if one in set(own["name"])]
    for aside, (null, look) in zip((-0.2, 0.2), NULLS.items(), strict=True):
        part = own[own["null"] == null]
        ax.scatter(part["alarm"], part["name"].map(names.index) + aside, s=28, alpha=0.75, lw=0,
                   color=look.colour, marker=look.marker)  # fmt: skip
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.axvline(PROMISED, color=MUTED, lw=0.9, zorder=0)
    ax.set(xlim=(-0.02, 1.02), xlabel="share of audits that raise a false alarm", ylabel="")
    ax.set_xticks([0, PROMISED, 0.25, 0.5, 0.75, 1.0])
    ax.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0, decimals=0))
    ax.tick_params(axis="y", length=0)
    for at in range(1, len(names)):
        ax.axhline(at - 0.5, color="#eeeeee", lw=0.6, zorder=0)


def _with_error(row: Any, column: str) -> pd.Series[Any]:
    """A rate with its Wilson interval over simulations."""
    value, n = row[column], row["simulations"]
    if not np.isfinite(value):
        return pd.Series({"value": np.nan, "low": np.nan, "high": np.nan})
    low, high = proportion_confint(round(value * n), n, method="wilson")
    return pd.Series({"value": value, "low": low, "high": high})


@figure("fig_power")
def fig_power(table: pd.DataFrame, reference: int, kid: float) -> Figure:
    """Share of audits that find a planted difference, and of intervals that hold it, by ratio."""
    own = with_gap(table)
    sizes = sorted(set(own["n_min"]))
    looks = level_looks([f"n = {n}" for n in sizes])
    foot = (
        f"A small group of n subjects against {reference}, whose KID is {kid:g}; features of known "
        "law, of groups that differ in real images and kinds of error. Whiskers: 95% Monte Carlo "
        "intervals. Line: the 95% that is promised."
    )
    fig = page(3.2, "How large a disparity does the audit find?", foot)
    alarms, coverage = fig.subplots(1, 2)
    rate_panel(alarms, own, "alarm", looks)
    rate_panel(coverage, own, "coverage", looks)
    coverage.axhline(1 - PROMISED, color=MUTED, lw=0.8)
    alarms.set(ylim=(0, 1.04), ylabel="share of audits that find it")
    coverage.set(ylim=(0.88, 1.0), ylabel="share of intervals that hold the truth")
    for ax, title in ((alarms, "Power"), (coverage, "Coverage of 95% intervals")):
        ax.set_title(title, loc="left")
        panel_legend(ax, looks)
    return fig


def with_gap(table: pd.DataFrame) -> pd.DataFrame:
    """The audit's rows where a difference in KID was planted."""
    own = table[(table["procedure"] == "audit") & (table["metric"] == "kid")]
    return own[own["null"] == "none"].assign(coverage=1 - own["missed"])


def rate_panel(ax: Axes, own: pd.DataFrame, column: str, looks: Sequence[Look]) -> None:
    """A rate over simulated audits against the planted ratio, a line per size."""
    ratios = sorted(set(own["planted_ratio"]))
    for n, look in zip(sorted(set(own["n_min"])), looks, strict=True):
        part = own[own["n_min"] == n].sort_values("planted_ratio")
        if column == "alarm":
            ax.plot(part["planted_ratio"], part[column], color=look.colour, lw=1.0)
        for row in part.to_dict("records"):
            whisker(ax, _with_error(row, column), row["planted_ratio"], look)
    ax.set_xscale("log")  # the small ratios, where it is decided, lie close together
    ax.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
    ax.minorticks_off()
    ax.set_xlabel("KID of the small group / KID of the large group")


@figure("fig_fid_bias")
def fig_fid_bias(rows: pd.DataFrame, limit: float) -> Figure:
    """Plain FID against n of two groups of equal population FID; from ``known.fid_bias``."""
    return fid_against_n_figure(
        rows,
        limits={"": limit},
        title="FID of two equally good groups, by n (simulated features)",
        limit="the population FID of both groups, in closed form",
    )


@figure("fig_planted")
def fig_planted(found: pd.DataFrame, runs: pd.DataFrame, where: tuple[str, str]) -> Figure:
    """The truth by group, the audit's gap, and how often it is told, with a plant and without."""
    attribute, level = where
    arms = list(dict.fromkeys(found["arm"]))
    own = runs[runs["attribute"] == attribute]
    levels = sorted(set(own["level"]) - {"all"})
    looks = [
        Look(level_name(attribute, name), LEVEL_COLOURS[i % 7], "osD^v<>"[i % 7])
        for i, name in enumerate(levels)
    ]
    count = own["seed"].nunique()
    foot = (
        f"{count} fine-tunings with a plant on {level_name(*where)} and {count} without, a dot "
        "each, of the same patients, others for every seed. Sharpness: of a generated image minus "
        "the same patient's real one. Whiskers: exact 95% intervals. Grey lines beside them: what "
        "is promised; the other short lines are means."
    )
    fig = page(3.0, "Does the audit find a generator that serves a group worse?", foot, (), looks)
    truth, gaps, rates = fig.subplots(1, 3)
    for at, arm in enumerate(arms):
        part = own[own["arm"] == arm]
        for i, (name, look) in enumerate(zip(levels, looks, strict=True)):
            rows = part[(part["metric"] == "sharpness_change") & (part["reference"] == "")]
            _dots(truth, rows.loc[rows["level"] == name, "value"], at + 0.3 * (i - 0.5), look)
        rows = part[(part["metric"] == "equivalent_blur") & (part["reference"] != "")]
        sign = np.where(rows["level"] == level, 1.0, -1.0)  # always planted level minus another
        _dots(gaps, rows["value"] * sign, at, Look("", MUTED, "o"))
        row = found[(found["arm"] == arm) & found["promised"].notna()].iloc[0]
        whisker(rates, row.to_dict() | {"value": row["rate"]}, at, Look("", "black", "o"))
        rates.plot([at - 0.25, at + 0.25], [row["promised"]] * 2, color=MUTED, lw=0.9)
    gaps.axhline(0, color=MUTED, lw=0.8, zorder=0)
    truth.set_ylabel("sharpness against real, grey levels")
    gaps.set_ylabel("gap in equivalent blur, pixels")
    rates.set(ylim=(-0.03, 1.03), ylabel="share of runs in which a gap is told")
    titles = ("The truth by group", "What the audit measures", "How often it tells")
    for ax, title in zip((truth, gaps, rates), titles, strict=True):
        ax.set_title(title, loc="left")
        ax.set_xticks(range(len(arms)), arms)
        ax.set_xlim(-0.5, len(arms) - 0.5)
    return fig


def _dots(ax: Axes, values: pd.Series[float], at: float, look: Look) -> None:
    """A dot per run side by side, and a line at their mean."""
    spread = np.linspace(-0.09, 0.09, len(values)) if len(values) > 1 else [0.0]
    ax.plot(at + np.asarray(spread), values, look.marker, color=look.colour, ms=3, alpha=0.7)
    ax.plot([at - 0.13, at + 0.13], [values.mean()] * 2, color=look.colour, lw=1.2)
