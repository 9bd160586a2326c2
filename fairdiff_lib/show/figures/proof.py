"""What the proof says: criteria, figures, sentences. Nothing is simulated here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from statsmodels.stats.proportion import proportion_confint

from fairdiff_lib.settings.options import ProofConfig, Settings
from fairdiff_lib.show.figures.panels import fid_against_n_figure
from fairdiff_lib.show.style import LEVEL_COLOURS, MUTED, STYLE, Look, page, panel_legend, whisker
from fairdiff_lib.studies.proof.naive import LEVEL
from fairdiff_lib.studies.proof.audits import LAYERS, Cell, findings

MOST_ALARMS = 0.06  # of audits of equal groups
LEAST_COVERAGE = 0.94  # of 95% intervals
LEAST_COVERAGE_SMALL = 0.925  # where the smallest group has fewer than SMALL subjects
SMALL = 100
NULLS = {
    "exchangeable": Look("exchangeable groups", "#0072b2", "o"),
    "unequal": Look("unequal groups of equal truth", "#d55e00", "D"),
}
METRICS = {
    "kid": "KID",
    "kid_several_images": "KID, 1-3 images a subject",
    "kid_family_race": "KID, three levels, max-|t|",
    "kid_family_all": "KID, three attributes, max-|t|",
    "kid_standardised": "KID at common case mix",
    "auc": "AUC",
    "accuracy": "accuracy",
    "denoising_loss": "denoising loss",
    "fid": "FID",
}
PROCEDURES = {
    "fid_permutation": "permutation, own n",
    "fid_equal_n_permutation": "permutation, equal n",
    "released_t_test": "t-test over replicates",
    "kid_raw_permutation": "permutation, own n",
    "kid_equal_n_permutation": "permutation, equal n",
    "kid_bootstrap_self_pairs": "bootstrap with self-pairs",
    "kid_crude": "plain KID, case mix ignored",
}


def ours(table: pd.DataFrame) -> pd.DataFrame:
    """The audit's own cells under a null."""
    return table[(table["procedure"] == "audit") & (table["null"] != "none")]


def verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """Whether each of our cells meets the criteria that were fixed beforehand.

    Parameters
    ----------
    table : DataFrame
        In ``proof.COLUMNS``.

    Returns
    -------
    DataFrame
        The cells of the audit under a null, with alarms_allowed, coverage_needed, passed.
        A family of contrasts has no joint interval: its coverage is NaN and is not asked for.
    """
    own = ours(table)
    needed = np.where(own["n_min"] < SMALL, LEAST_COVERAGE_SMALL, LEAST_COVERAGE)
    needed = np.where(own["coverage"].isna(), np.nan, needed)
    covered = own["coverage"].isna() | (own["coverage"] >= needed)
    passed = (own["alarm_rate"] <= MOST_ALARMS) & covered
    return own.assign(alarms_allowed=MOST_ALARMS, coverage_needed=needed, passed=passed)


def about_ours(table: pd.DataFrame) -> str:
    """Sentences on the audit: how many cells pass, the extremes, and every cell that fails."""
    found = verdicts(table)
    kid = found[found["metric"] == "kid"]
    lines = [
        f"{int(found['passed'].sum())} of {len(found)} cells meet the criteria. KID alarms in "
        f"{kid['alarm_rate'].min():.1%} to {kid['alarm_rate'].max():.1%} of "
        f"{kid['simulations'].sum():,} audits of groups of equal truth, and its 95% intervals hold "
        f"the truth in {kid['coverage'].min():.1%} to {kid['coverage'].max():.1%}."
    ]
    for row in found[~found["passed"]].to_dict("records"):
        joint = np.isnan(row["coverage"])
        covered = "" if joint else f", coverage {row['coverage']:.1%}"
        lines.append(
            f"- **Fails**: {cell_name(row)}, {row['null']}: alarms {row['alarm_rate']:.1%} "
            f"(± {row['mc_error']:.1%}){covered}."
        )
    return "\n".join(lines)


def about_naive(table: pd.DataFrame) -> str:
    """One sentence per naive test: the range of its alarms in each null."""
    own = table[(table["procedure"] != "audit") & (table["null"] != "none")]
    lines = []
    for (metric, procedure), part in own.groupby(["metric", "procedure"], sort=False):
        rates = [
            f"{cell['alarm_rate'].min():.0%} to {cell['alarm_rate'].max():.0%} ({null})"
            for null, cell in part.groupby("null", sort=False)
        ]
        names = METRICS[str(metric)], PROCEDURES[str(procedure)]
        lines.append(f"- {', '.join(names)}: {', '.join(rates)}")
    return "Alarms where the truth is equal:\n" + "\n".join(lines)


def about_fid_bias(rows: pd.DataFrame, limit: float) -> str:
    """What plain FID makes of groups whose population FID is the same, at the fewest and most."""
    means = rows.groupby(["n", "level"], sort=False)["value"].mean().unstack("level")
    few, many = (
        " and ".join(f"{value:.3g} ({level})" for level, value in means.loc[n].items())
        for n in (means.index.min(), means.index.max())
    )
    return (
        f"Both groups have a population FID of {limit:.3g}. With n = {means.index.min():,}, plain "
        f"FID is on average {few}; with n = {means.index.max():,}, {many}. "
        "As the truth is the same, what differs is bias, or chance."
    )


def half_widths(cells: Sequence[Cell], folder: Path) -> pd.Series[Any]:
    """Layer to the median half-width of the audit's intervals in its most precise cell."""
    rows = []
    for cell in cells:
        if cell.procedure == "audit" and cell.metric == "kid":
            found = findings(cell, folder)
            rows.append((cell.layer, float((found["high"] - found["low"]).median() / 2)))
    return pd.DataFrame(rows, columns=["layer", "reach"]).groupby("layer")["reach"].min()


def about_truth(truths: pd.DataFrame, reach: pd.Series[Any]) -> str:
    """How exact the pools' truth is, beside the audits' own uncertainty."""
    return " ".join(
        f"Layer {layer}: the pools' KID has a standard error of at most "
        f"{part['standard_error'].max():.2g}; at best, an audit's interval reaches "
        f"{reach[layer]:.2g} to each side."
        for layer, part in truths.groupby("layer")
    )


def scalars(table: pd.DataFrame) -> dict[str, Any]:
    """What the notebook records."""
    found = verdicts(table)
    naive = table[(table["procedure"] != "audit") & (table["null"] == "unequal")]
    return {
        "cells": len(table),
        "audits": int(table["simulations"].sum()),
        "own_cells": len(found),
        "own_cells_passed": int(found["passed"].sum()),
        "most_alarms": float(found["alarm_rate"].max()),
        "least_coverage": float(found["coverage"].min()),
        "naive_fid_alarms": float(naive.loc[naive["metric"] == "fid", "alarm_rate"].min()),
    }


def cell_name(row: Any) -> str:
    """Layer, metric or test, and size, in words."""
    what = METRICS[row["metric"]]
    if row["procedure"] != "audit":
        what = f"{what}, {PROCEDURES[row['procedure']]}"
    return f"{row['layer']}: {what}, n = {row['n_min']}"


# -- figures -----------------------------------------------------------------------------------


def fig_calibration(table: pd.DataFrame, notes: Sequence[str] = ()) -> Figure:
    """Alarms and coverage of every cell under both nulls, ours above the naive tests.

    Parameters
    ----------
    table : DataFrame
        In ``proof.COLUMNS``.
    """
    order = [*LAYERS, *METRICS, *PROCEDURES, "audit"]
    under = table[table["null"] != "none"].sort_values(
        ["layer", "metric", "procedure", "n_min"],
        key=lambda column: column.map(order.index) if column.name != "n_min" else column,
        kind="stable",
    )
    parts = [under[under["procedure"] == "audit"], under[under["procedure"] != "audit"]]
    rows = [list(dict.fromkeys(part.apply(cell_name, axis=1))) for part in parts]
    layers = "; ".join(f"{key}: {text}" for key, text in LAYERS.items())
    foot = (
        f"Dots: share of simulated audits, with its 95% Monte Carlo interval. {layers}. "
        "n: subjects of the smallest group. Line: what is promised; grey: what was allowed."
    )
    heights = [0.55 + 0.155 * len(names) for names in rows]
    title = "Does the audit alarm where groups are equally good?"
    fig = page(1.0 + sum(heights), title, foot, notes, list(NULLS.values()))
    with matplotlib.rc_context(STYLE):
        subs = np.atleast_1d(np.asarray(fig.subfigures(2, 1, height_ratios=heights)))
        for sub, part, names, head in zip(
            subs, parts, rows, ("the study's audit", "tests in common use"), strict=True
        ):
            alarms, coverage = sub.subplots(1, 2, sharey=True)
            _forest(alarms, part, names, "alarm_rate")
            _forest(coverage, part, names, "coverage")
            alarms.set_title(f"Alarms: {head}", loc="left")
            coverage.set_title("Coverage of 95% intervals", loc="left")
            alarms.set_yticks(range(len(names)), names, fontsize=6.5)
            alarms.set_ylim(len(names) - 0.4, -0.6)
            _promise(alarms, LEVEL, LEVEL, MOST_ALARMS)
            _promise(coverage, 1 - LEVEL, LEAST_COVERAGE_SMALL, 1 - LEVEL)
    return fig


def _forest(ax: Axes, table: pd.DataFrame, names: Sequence[str], column: str) -> None:
    """A lying dot per cell and null."""
    for row in table.to_dict("records"):
        shift = 0.18 * (1 if row["null"] == "unequal" else -1)
        at = names.index(cell_name(row)) + shift
        whisker(ax, _with_error(row, column), at, NULLS[row["null"]], across=True)
    ax.set_xlabel("share of audits")
    ax.tick_params(axis="y", length=0)
    ax.set_xlim(left=0 if column == "alarm_rate" else None, right=None)


def _with_error(row: Any, column: str) -> Any:
    """A rate with its Wilson interval over simulations."""
    value, n = row[column], row["simulations"]
    if not np.isfinite(value):
        return pd.Series({"value": np.nan, "low": np.nan, "high": np.nan})
    low, high = proportion_confint(round(value * n), n, method="wilson")
    return pd.Series({"value": value, "low": low, "high": high})


def _promise(ax: Axes, line: float, low: float, high: float) -> None:
    ax.axvspan(low, high, color="#e8e8e8", lw=0, zorder=0)
    ax.axvline(line, color=MUTED, lw=0.8, zorder=1)


def fig_power(table: pd.DataFrame, config: ProofConfig) -> Figure:
    """Share of audits that alarm against the planted KID ratio, a line per size."""
    own = table[(table["procedure"] == "audit") & (table["layer"] == "F")]
    own = own[(own["metric"] == "kid") & (own["null"] != "exchangeable")]
    sizes = sorted(set(own["n_min"]))
    looks = [Look(f"n = {n}", LEVEL_COLOURS[i % 7], "osD^v<>"[i % 7]) for i, n in enumerate(sizes)]
    foot = (
        f"Small group of n subjects against {config.reference}, whose KID is {config.kid:g}; real "
        "distributions and kinds of error differ (layer F). 95% Monte Carlo interval; line: 5%."
    )
    fig = page(3.2, "How large a disparity does the audit find?", foot)
    with matplotlib.rc_context(STYLE):
        alarms, coverage = fig.subplots(1, 2)
        for n, look in zip(sizes, looks, strict=True):
            part = own[own["n_min"] == n].sort_values("planted_ratio")
            for ax, column in ((alarms, "alarm_rate"), (coverage, "coverage")):
                ax.plot(part["planted_ratio"], part[column], color=look.colour, lw=1.0)
                for row in part.to_dict("records"):
                    whisker(ax, _with_error(row, column), row["planted_ratio"], look)
        alarms.axhline(LEVEL, color=MUTED, lw=0.8)
        coverage.axhline(1 - LEVEL, color=MUTED, lw=0.8)
        alarms.set(ylim=(0, 1.02), ylabel="share of audits that alarm")
        coverage.set(ylabel="share of intervals that hold the truth")
        for ax, title in ((alarms, "Power"), (coverage, "Coverage of 95% intervals")):
            ax.set_xticks(sorted(set(own["planted_ratio"])))
            ax.set_xlabel("KID of the small group / KID of the large group")
            ax.set_title(title, loc="left")
            panel_legend(ax, looks)
    return fig


def fig_fid_bias(rows: pd.DataFrame, limit: float) -> Figure:
    """Plain FID against n of two groups of equal population FID.

    Parameters
    ----------
    rows, limit
        From ``proof_features.fid_bias``.
    """
    return fid_against_n_figure(
        rows,
        limits={"": limit},
        title="FID of two equally good groups, by n (simulated features)",
        limit="the population FID of both groups, in closed form",
    )


def criteria(settings: Settings) -> str:
    """What was fixed beforehand, in one sentence."""
    own = settings.proof
    return (
        f"Seed {own.seed}; {own.simulations:,} audits per cell of layer F and "
        f"{own.pool_simulations:,} of layers I and T; alarms in at most {MOST_ALARMS:.0%}; "
        f"coverage at least {LEAST_COVERAGE:.0%}, or {LEAST_COVERAGE_SMALL:.1%} below n = {SMALL}."
    )
