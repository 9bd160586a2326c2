"""Pictures of the proof: false alarms of the audit and of usual tests, power, FID's bias."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from statsmodels.stats.proportion import proportion_confint

from fairdiff_lib.show.figures.quality import fid_against_n_figure
from fairdiff_lib.show.front import figure
from fairdiff_lib.show.panels import panel_legend, whisker
from fairdiff_lib.show.style import LEVEL_COLOURS, MUTED, STYLE, Look, page

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
    with matplotlib.rc_context(STYLE):
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
    with matplotlib.rc_context(STYLE):
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
