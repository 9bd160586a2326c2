"""Sentences on the proof of the audit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.show.figures.proof import METRICS, NULLS, PROCEDURES, cell_name
from fairdiff_lib.show.front import sentence


@sentence("proof_criteria")
def about_criteria(asked: Mapping[str, Any]) -> str:
    """What was fixed beforehand."""
    return (
        f"Before the proof was run, this was asked of the audit. Where groups are equally good it "
        f"may alarm in at most {asked['most_alarms']:.0%} of audits. Its 95% intervals have to "
        f"hold the truth in at least {asked['least_coverage']:.0%} of audits, and in at least "
        f"{asked['least_coverage_small']:.1%} where the smallest group has fewer than "
        f"{asked['small']} subjects. A cell of layer F has {asked['simulations']:,} audits, one of "
        f"layers I and T {asked['pool_simulations']:,}; the seed is {asked['seed']}."
    )


@sentence("proof_audit")
def about_audit(found: pd.DataFrame) -> str:
    """How many cells pass, the extremes, and every cell that fails."""
    kid = found[found["metric"] == "kid"]
    lines = [
        f"**{int(found['passed'].sum())} of {len(found)} cells meet the criteria.** Where groups "
        f"are equally good, an audit by Kernel Inception Distance (KID) raises a false alarm in "
        f"{kid['alarm_rate'].min():.1%} to {kid['alarm_rate'].max():.1%} of cases, over "
        f"{kid['simulations'].sum():,} audits. Its 95% intervals hold the truth in "
        f"{kid['coverage'].min():.1%} to {kid['coverage'].max():.1%}."
    ]
    for row in found[~found["passed"]].to_dict("records"):
        covered = "" if np.isnan(row["coverage"]) else f"; coverage {row['coverage']:.1%}"
        lines.append(
            f"- **Fails**: {cell_name(row)}, {NULLS[row['null']].label}: false alarms in "
            f"{row['alarm_rate']:.1%} (standard error {row['mc_error']:.1%}){covered}."
        )
    return "\n".join(lines)


@sentence("proof_usual_tests")
def about_usual_tests(table: pd.DataFrame) -> str:
    """One line per test in common use: the range of its false alarms in each null."""
    own = table[(table["procedure"] != "audit") & (table["null"] != "none")]
    lines = ["How often tests in common use call equally good groups unequal:"]
    for (metric, procedure), part in own.groupby(["metric", "procedure"], sort=False):
        rates = [
            f"{cell['alarm_rate'].min():.0%} to {cell['alarm_rate'].max():.0%} "
            f"({NULLS[str(null)].label})"
            for null, cell in part.groupby("null", sort=False)
        ]
        lines.append(f"- {METRICS[str(metric)]}, {PROCEDURES[str(procedure)]}: {'; '.join(rates)}.")
    return "\n".join(lines)


@sentence("proof_fid_bias")
def about_fid_bias(rows: pd.DataFrame, limit: float) -> str:
    """What plain FID makes of groups whose population FID is the same, at the fewest and most."""
    means = rows.groupby(["n", "level"], sort=False)["value"].mean().unstack("level")
    few, many = (
        " and ".join(f"{value:.3g} for the {level}" for level, value in means.loc[n].items())
        for n in (means.index.min(), means.index.max())
    )
    return (
        f"Both groups are equally good: their true Frechet Inception Distance (FID) is "
        f"{limit:.3g}. "
        f"With {means.index.min():,} images, measured FID is {few}. With {means.index.max():,} "
        f"images it is {many}. What differs is bias and chance, not quality."
    )


@sentence("proof_truth")
def about_truth(truths: pd.DataFrame, reach: pd.Series[Any]) -> str:
    """How exact the pools' truth is, beside the audits' own uncertainty."""
    return " ".join(
        f"In layer {layer}, the true KID is known with a standard error of at most "
        f"{part['standard_error'].max():.2g}. The narrowest interval of an audit reaches "
        f"{reach[layer]:.2g} to each side."
        for layer, part in truths.groupby("layer")
    )
